"""What Anthropic's API answers reaches the caller as an answer of OpenAI's."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from maas.inference.domain.anthropic_answer import MAX_MESSAGE_BYTES
from maas.inference.domain.anthropic_wire import AnthropicWire
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.route import Endpoint
from maas.inference.domain.wire import BrokenStreamError, NotTakenError, Refusal
from tests.upstream.desk import Desk, Request
from tests.upstream.replies import Reply

WIRE = AnthropicWire(now=lambda: 1_800_000_000)
ASK = Ask(
    kind="chat",
    model="chat",
    body={"model": "chat", "messages": [{"role": "user", "content": "hello out there"}]},
    most_input=400,
    likely_input=8,
    most_output=None,
)
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-1",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "output_tokens": 7,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1_000,
        "output_tokens_details": {"thinking_tokens": 3},
        "service_tier": "standard",
    },
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("weather", "time")
]


def endpoint(model: str = "claude-upstream") -> Endpoint:
    return Endpoint(
        protocol="anthropic",
        reach="private",
        provider_kind="anthropic",
        urls={"chat": "http://upstream.test/v1/messages"},
        model=model,
        headers={},
    )


def answered(desk: Desk, model: str = "claude-upstream", **body: object) -> tuple[Ask, Reply]:
    """Ask the scripted upstream, which needs no network for it."""
    ask = Ask(
        kind="chat",
        model="chat",
        body={**ASK.body, **body},
        most_input=400,
        likely_input=8,
        most_output=None,
        is_stream=body.get("stream") is True,
        wants_usage="stream_options" in body,
    )
    request = Request(
        method="POST",
        target="/v1/messages",
        headers={"anthropic-version": "2023-06-01"},
        body=WIRE.spell(ask, endpoint(model), most_output=100),
    )
    return ask, desk.take(request).reply


def told(desk: Desk, model: str = "claude-upstream", **body: object) -> dict[str, Any]:
    ask, reply = answered(desk, model, **body)
    assert reply.status == 200, reply.body
    whole: dict[str, Any] = json.loads(WIRE.read(ask, reply.body).body)
    ChatCompletion.model_validate(whole)
    return whole


def read(**changes: object) -> dict[str, Any]:
    body = json.dumps({**MESSAGE, **changes}).encode()
    whole: dict[str, Any] = json.loads(WIRE.read(ASK, body).body)
    ChatCompletion.model_validate(whole)
    return whole


class TestAMessage:
    def test_is_a_completion(self) -> None:
        whole = read()

        assert whole["id"] == "chatcmpl-msg_1"
        assert (whole["created"], whole["model"]) == (1_800_000_000, "claude-1")
        assert whole["service_tier"] == "default"
        assert whole["choices"] == [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "hello",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("refusal", "content_filter"),
            ("pause_turn", "stop"),
            ("of_next_year", "stop"),
            (None, "stop"),
        ],
    )
    def test_ends_for_one_of_openais_reasons(self, reason: str | None, finish: str) -> None:
        assert read(stop_reason=reason)["choices"][0]["finish_reason"] == finish

    def test_tells_why_it_was_refused(self) -> None:
        details = {"type": "refusal", "category": "cyber", "explanation": "No."}

        whole = read(content=[], stop_reason="refusal", stop_details=details)

        message = whole["choices"][0]["message"]
        assert (message["refusal"], message["content"]) == ("No.", "")

    def test_passes_over_blocks_that_nobody_knows(self) -> None:
        content = [{"type": "of_next_year", "x": 1}, *MESSAGE["content"], "odd"]

        assert read(content=content)["choices"][0]["message"]["content"] == "hello"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b'{"hello": ["world"]}',
            b"{",
            b"\xff",
            pytest.param(b'{"content": []}' + b" " * MAX_MESSAGE_BYTES, id="long"),
        ],
    )
    def test_is_nothing_else(self, body: bytes) -> None:
        with pytest.raises(BrokenStreamError):
            WIRE.read(ASK, body)


class TestUsage:
    def test_is_told_in_openais_words(self) -> None:
        assert read()["usage"] == {
            "prompt_tokens": 1_110,
            "completion_tokens": 7,
            "total_tokens": 1_117,
            "prompt_tokens_details": {
                "cached_tokens": 100,
                "cache_write_tokens": 1_000,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 3,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def test_is_counted_with_its_parts_apart(self) -> None:
        counts = WIRE.read(ASK, json.dumps(MESSAGE).encode()).counts

        assert counts == TokenCounts(input=1_110, cached=100, output=4, reasoning=3)

    def test_is_estimated_from_all_that_was_said(self) -> None:
        content = [
            {"type": "thinking", "thinking": "hm hm hm", "signature": "s"},
            {"type": "text", "text": "four"},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"at": "noon"}},
        ]
        body = {**MESSAGE, "content": content, "usage": None}

        seen = WIRE.read(ASK, json.dumps(body).encode()).seen

        assert (seen.input, seen.reasoning) == (8, 2)
        assert seen.output > 5

    @pytest.mark.parametrize(
        "change",
        [
            {"input_tokens": -1},
            {"input_tokens": None},
            {"input_tokens": True},
            {"output_tokens": "many"},
            {"output_tokens": 1.5},
            {"output_tokens": 10**13},
            {"output_tokens": 2},
            {"cache_read_input_tokens": -5},
            {"cache_creation_input_tokens": {}},
            {"cache_creation_input_tokens": "1"},
            {"output_tokens_details": 5},
            {"output_tokens_details": "none"},
            {"output_tokens_details": {"thinking_tokens": -1}},
        ],
    )
    def test_that_cannot_be_is_none_and_is_estimated(self, change: dict[str, object]) -> None:
        body = {**MESSAGE, "usage": {**MESSAGE["usage"], **change}}

        answer = WIRE.read(ASK, json.dumps(body).encode())

        assert answer.counts is None
        assert answer.seen == TokenCounts(input=8, output=2)
        assert "usage" not in json.loads(answer.body)

    @pytest.mark.parametrize("usage", [None, [], "many", 3])
    def test_may_be_missing(self, usage: object) -> None:
        assert WIRE.read(ASK, json.dumps({**MESSAGE, "usage": usage}).encode()).counts is None


class TestTheScriptedUpstream:
    def test_answers_and_is_counted_alike_on_both_sides(self) -> None:
        desk = Desk()

        whole = told(desk)

        assert whole["choices"][0]["message"]["content"]
        (call,) = desk.ledger.calls
        used = whole["usage"]
        assert used["prompt_tokens"] == call.prompt_tokens
        assert used["completion_tokens"] == call.told_completion_tokens == 16

    def test_thinks_aloud_and_takes_its_thoughts_back(self) -> None:
        desk = Desk()

        message = told(desk, "thinks")["choices"][0]["message"]
        again = told(desk, messages=[*ASK.body["messages"], message, *ASK.body["messages"]])  # type: ignore[misc]  # a list, as above

        assert len(message["reasoning_content"].split()) == 5
        assert message["thinking_blocks"][0]["signature"]
        assert again["choices"][0]["message"]["content"]

    def test_calls_two_tools_at_once_and_takes_both_answers(self) -> None:
        desk = Desk()

        first = told(desk, "calls-two-at-once", tools=TOOLS)["choices"][0]
        calls = first["message"]["tool_calls"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls
        ]
        second = told(
            desk,
            "calls-two-at-once",
            tools=TOOLS,
            messages=[*ASK.body["messages"], first["message"], *results],  # type: ignore[misc]  # a list, as above
        )["choices"][0]

        assert first["finish_reason"] == "tool_calls"
        assert first["message"]["content"] is None
        assert [call["function"]["name"] for call in calls] == ["weather", "time"]
        assert json.loads(calls[0]["function"]["arguments"]) == {"city": "river"}
        assert second["finish_reason"] == "stop"
        assert second["message"]["content"]

    def test_calls_one_tool_where_two_are_one_too_many(self) -> None:
        whole = told(Desk(), "calls-two-at-once", tools=TOOLS, parallel_tool_calls=False)

        assert len(whole["choices"][0]["message"]["tool_calls"]) == 1

    def test_calls_the_tool_that_is_named(self) -> None:
        whole = told(Desk(), tools=TOOLS, tool_choice=TOOLS[1])

        (call,) = whole["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "time"

    def test_answers_by_a_schema(self) -> None:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}

        whole = told(Desk(), response_format=wanted)

        assert json.loads(whole["choices"][0]["message"]["content"]) == {"city": "river"}

    def test_refuses_in_words_that_name_the_callers_field(self) -> None:
        _, reply = answered(Desk(), nobody_knows_this=1)

        assert WIRE.refusal(reply.status, reply.body) == Refusal(
            status=400,
            message="nobody_knows_this: Extra inputs are not permitted",
            param="nobody_knows_this",
        )


class TestARefusal:
    @pytest.mark.parametrize(
        ("message", "param", "code"),
        [
            ("stop_sequences.0: each stop sequence must contain non-whitespace", "stop", None),
            ("messages.1.content.0.text: Field required", "messages", None),
            ("system: text content blocks must be non-empty", "messages", None),
            ("`temperature` is deprecated for this model.", None, None),
            (
                "prompt is too long: 210000 tokens > 200000 maximum",
                "messages",
                "context_length_exceeded",
            ),
        ],
    )
    def test_is_told_with_its_field(
        self, message: str, param: str | None, code: str | None
    ) -> None:
        error = {"type": "invalid_request_error", "message": message}
        body = json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()

        assert WIRE.refusal(413, body) == Refusal(
            status=413, message=message, param=param, code=code
        )

    @pytest.mark.parametrize(
        "body", [b"", b"\xff", b"[]", b'{"error": "no"}', b'{"error": {"message": 1}}']
    )
    def test_that_cannot_be_read_tells_nothing(self, body: bytes) -> None:
        assert WIRE.refusal(400, body) is None


@pytest.mark.parametrize("kind", ["completions", "embeddings"])
def test_only_chats_are_taken(kind: Any) -> None:
    ask = Ask(kind=kind, model="chat", body={}, most_input=1, likely_input=1, most_output=None)

    with pytest.raises(NotTakenError):
        WIRE.spell(ask, endpoint(), most_output=1)
