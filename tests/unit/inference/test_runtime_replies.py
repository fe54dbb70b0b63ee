"""Replies in JSON, in OpenAI's words: whole, in pieces, and cut off."""

import json
from typing import Any

import pytest

from maas.inference.application.runtime_answers import StreamShape, merge
from maas.inference.application.runtime_ports import ModelFacts
from maas.inference.application.runtime_replies import ReplyReader
from maas.inference.application.runtime_requests import plan

ARGUMENTS = '{"in": {"a": "}\\"{"}, "b":\n {}}'
CALL = '{\n "name": "set_age",\n "arguments": ' + ARGUMENTS + "\n}"
SAID = 'A "b" \\ ü 😀\n\t'
TOOLS = [{"type": "function", "function": {"name": "set_age"}}]
SHARED = plan("chat", {"messages": [{"role": "user"}], "tools": TOOLS, "n": 2}, ModelFacts())


def answered(text: str, reason: str = "stop") -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "created": 7,
        "model": "ada:1",
        "choices": [
            {
                "index": 0,
                "finish_reason": reason,
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }


def merged(first: str, second: str, reason: str = "stop") -> Any:
    return merge(SHARED, [answered(first, reason), answered(second, reason)])["choices"]


def read(text: str, size: int) -> tuple[list[Any], str]:
    reader, calls, said = ReplyReader(), [], ""
    for start in range(0, len(text), size):
        delta = reader.feed(text[start : start + size])
        calls += delta.get("tool_calls", [])
        said += delta.get("content", "")
    return calls, said


def test_a_call_is_told_as_one() -> None:
    choice = merged(CALL, CALL)[0]

    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "set_age", "arguments": ARGUMENTS}
    assert call["id"].startswith("call_")
    assert "index" not in call
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"


def test_each_choice_may_be_another() -> None:
    call, text = merged(CALL, json.dumps({"text": SAID}))

    assert "tool_calls" in call["message"]
    assert text["message"] == {"role": "assistant", "content": SAID}
    assert text["finish_reason"] == "stop"


def test_a_call_that_was_cut_off_says_so() -> None:
    begun, unbegun = merged(CALL[:48], CALL[:9], "length")

    assert begun["finish_reason"] == unbegun["finish_reason"] == "length"
    assert ARGUMENTS.startswith(begun["message"]["tool_calls"][0]["function"]["arguments"])
    assert unbegun["message"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_a_call_is_read_however_it_is_cut(size: int) -> None:
    (head, *others), said = read(CALL, size)

    assert head["function"]["name"] == "set_age"
    assert all("id" not in each for each in others)
    arguments = [each["function"]["arguments"] for each in (head, *others)]
    assert "".join(arguments) == ARGUMENTS
    assert said == ""


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_text_is_read_however_it_is_cut(*, size: int, is_ascii: bool) -> None:
    calls, said = read(json.dumps({"text": SAID}, ensure_ascii=is_ascii), size)

    assert said == SAID
    assert calls == []


@pytest.mark.parametrize("rest", ["a", "\\n", "\\u0041", ""])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_half_a_character_does_not_keep_back_what_follows(rest: str, size: int) -> None:
    _, said = read(f'{{"text": "\\ud83d{rest}"}}', size)

    assert said == json.loads(f'"\\ud83d{rest}"')


def event(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": reason, "delta": delta}
    return {"id": "x", "object": "chunk", "created": 7, "model": "ada:1", "choices": [choice]}


def test_a_stream_passes_on_what_means_something() -> None:
    shape = StreamShape(SHARED)
    share = SHARED.shares[0]

    passed: list[Any] = [
        shape.pass_on(share, each)
        for each in (
            event(role="assistant", content=None),
            event(content=CALL[:9]),
            event(content=CALL[9:40]),
            event(content=CALL[40:]),
            event("stop"),
        )
    ]

    first, nothing, head, tail, last = passed
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert nothing is None
    assert [each["choices"][0]["delta"]["tool_calls"][0]["index"] for each in (head, tail)] == [
        0,
        0,
    ]
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "tool_calls"
