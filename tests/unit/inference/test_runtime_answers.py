"""Answers of a model's process in OpenAI's words."""

import json
from typing import Any

import pytest

from maas.inference.application.runtime_answers import EventReader, StreamShape, merge, refuse
from maas.inference.application.runtime_ports import ModelFacts
from maas.inference.application.runtime_requests import plan

FACTS = ModelFacts(embedding_length=2)
TOKENS = {
    "content": [
        {"id": 1, "token": "Hi", "bytes": [72, 105], "logprob": -0.5, "top_logprobs": []},
        {
            "id": 2,
            "token": " you",
            "bytes": [],
            "logprob": -1.5,
            "top_logprobs": [{"id": 2, "token": " you", "bytes": [], "logprob": -1.5}],
        },
    ]
}


def answer(choice: dict[str, Any], *, prompt: int = 5, completion: int = 2) -> dict[str, Any]:
    return {
        "id": "chatcmpl-x",
        "object": "text_completion",
        "created": 7,
        "model": "ada:1",
        "choices": [{"index": 0, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0},
        "timings": {"prompt_ms": 3},
    }


def test_choices_are_counted_together_and_their_prompt_once() -> None:
    shared = plan("completions", {"prompt": ["one", "two"], "n": 2}, FACTS)

    merged: Any = merge(shared, [answer({"text": text}) for text in "abcd"])

    assert [choice["index"] for choice in merged["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in merged["choices"]] == ["a", "b", "c", "d"]
    assert merged["usage"]["prompt_tokens"] == 10
    assert merged["usage"]["completion_tokens"] == 8
    assert merged["usage"]["total_tokens"] == 18
    assert "timings" not in merged


def test_completions_have_their_own_form_of_logprobs() -> None:
    shared = plan("completions", {"prompt": "one", "logprobs": 1}, FACTS)

    merged: Any = merge(shared, [answer({"text": "Hi you", "logprobs": TOKENS})])

    assert merged["choices"][0]["logprobs"] == {
        "tokens": ["Hi", " you"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{}, {" you": -1.5}],
        "text_offset": [0, 2],
    }


def event(**choice: Any) -> dict[str, Any]:
    return {"id": "x", "object": "chunk", "created": 7, "model": "ada:1", "choices": [choice]}


class TestStream:
    def test_a_usage_that_nobody_wants_is_kept_back(self) -> None:
        shared = plan("chat", {"messages": [{"role": "user"}], "stream": True}, FACTS)
        shape = StreamShape(shared)
        usage = {"prompt_tokens": 5, "completion_tokens": 2}

        passed = shape.pass_on(shared.shares[0], event(index=0, delta={}) | {"usage": usage})

        assert passed is not None
        assert "usage" not in passed
        assert list(shape.end()) == [b"data: [DONE]\n\n"]

    def test_the_usage_of_all_choices_comes_in_an_event_of_its_own(self) -> None:
        body = {
            "messages": [{"role": "user"}],
            "n": 2,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        shared = plan("chat", body, FACTS)
        shape = StreamShape(shared)
        usage = {"prompt_tokens": 5, "completion_tokens": 2}

        for share in shared.shares:
            assert shape.pass_on(share, {**event(), "choices": [], "usage": usage}) is None
        told, end = shape.end()

        assert json.loads(told.removeprefix(b"data: "))["usage"]["completion_tokens"] == 4
        assert json.loads(told.removeprefix(b"data: "))["usage"]["prompt_tokens"] == 5
        assert end == b"data: [DONE]\n\n"

    def test_events_carry_one_id_and_their_own_choice(self) -> None:
        shared = plan("chat", {"messages": [{"role": "user"}], "n": 2, "stream": True}, FACTS)
        shape = StreamShape(shared)
        first = {"role": "assistant", "content": None}

        passed: Any = [
            shape.pass_on(share, event(index=0, delta=dict(first))) for share in shared.shares
        ]

        assert passed[0]["id"] == passed[1]["id"] != "x"
        assert [each["choices"][0]["index"] for each in passed] == [0, 1]
        assert passed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}

    def test_offsets_of_tokens_go_on_from_event_to_event(self) -> None:
        shared = plan("completions", {"prompt": "a", "stream": True, "logprobs": 1}, FACTS)
        shape = StreamShape(shared)

        passed: Any = [
            shape.pass_on(shared.shares[0], event(index=0, text="Hi you", logprobs=TOKENS))
            for _ in range(2)
        ]

        offsets = [each["choices"][0]["logprobs"]["text_offset"] for each in passed]
        assert offsets == [[0, 2], [6, 8]]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    sent = b': ping\n\ndata: {"a": "\xc3\xa4"}\n\ndata: {"a": 2}\r\n\r\ndata: [DONE]\n\n'
    reader = EventReader()

    events = [
        each
        for start in range(0, len(sent), size)
        for each in reader.feed(sent[start : start + size])
    ]

    assert events == [{"a": "ä"}, {"a": 2}]
    assert reader.is_whole


def spoken(message: str, kind: str) -> bytes:
    return json.dumps({"error": {"code": 400, "message": message, "type": kind}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "told", "code"),
    [
        (400, spoken("too long", "exceed_context_size_error"), 400, "context_length_exceeded"),
        (
            500,
            spoken("input (9 tokens) is too large to process.", "server_error"),
            400,
            "context_length_exceeded",
        ),
        (400, spoken("no", "invalid_request_error"), 400, None),
        (500, spoken("Failed to parse messages: 'text' not found", "server_error"), 400, None),
        (500, spoken("broken", "server_error"), 502, "model-process-failed"),
        (501, spoken("no", "not_supported_error"), 502, "model-process-failed"),
        (401, spoken("no", "authentication_error"), 502, "model-process-failed"),
        (500, b"<html>", 502, "model-process-failed"),
        (400, b'{"error": "text"}', 400, None),
    ],
)
def test_refusals_are_told_in_openais_words(
    status: int, body: bytes, told: int, code: str | None
) -> None:
    found, error = refuse(status, body)

    assert found == told
    assert error["error"]["code"] == code  # type: ignore[index]  # JSON of any shape
    assert set(error["error"]) == {"message", "type", "param", "code"}  # type: ignore[call-overload]  # JSON of any shape
