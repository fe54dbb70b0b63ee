"""Anthropic's events become chunks of OpenAI's, however their bytes are split."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from maas.inference.domain.anthropic_stream import MAX_OPEN_BLOCKS, AnthropicStream
from maas.inference.domain.anthropic_wire import AnthropicWire
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.sse import LONG_EVENT_BYTES
from maas.inference.domain.wire import BrokenStreamError
from tests.unit.inference.test_anthropic_answer import TOOLS, answered
from tests.upstream.desk import Desk

WIRE = AnthropicWire(now=lambda: 1_800_000_000)
DONE = b"data: [DONE]\n\n"


def asked(*, wants_usage: bool = False) -> Ask:
    return Ask(
        kind="chat",
        model="chat",
        body={"messages": [{"role": "user", "content": "hello there"}]},
        most_input=400,
        likely_input=7,
        most_output=None,
        is_stream=True,
        wants_usage=wants_usage,
    )


def written(*events: dict[str, Any], end: str = "\n") -> bytes:
    return b"".join(
        f"event: {event['type']}{end}data: {json.dumps(event)}{end}{end}".encode()
        for event in events
    )


def started(**usage: object) -> dict[str, Any]:
    message = {"id": "msg_1", "model": "claude-1", "content": [], "usage": usage}
    return {"type": "message_start", "message": message}


def ended(reason: str | None = "end_turn", **usage: object) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": usage}


def begun(index: int, **block: object) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def more(index: int, **delta: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def stopped(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


START = started(input_tokens=10, output_tokens=1)
HELLO = [
    START,
    begun(0, type="text", text=""),
    {"type": "ping"},
    more(0, type="text_delta", text="hello"),
    more(0, type="text_delta", text=" there"),
    stopped(0),
    ended(output_tokens=5),
    {"type": "message_stop"},
]


def passed(stream: AnthropicStream, pieces: Iterable[bytes]) -> bytes:
    return b"".join([*map(stream.feed, pieces), stream.end()])


def chunks(text: bytes) -> list[dict[str, Any]]:
    """Read what the caller gets, each by OpenAI's own type."""
    assert text.endswith(DONE)
    lines = text.removesuffix(DONE).decode().split("\n\n")
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    for each in told:
        ChatCompletionChunk.model_validate(each)
    return told


def folded(text: bytes) -> dict[str, Any]:
    """Put a stream together as OpenAI's client does."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for each in chunks(text):
        state.handle_chunk(ChatCompletionChunk.model_validate(each))
    whole: dict[str, Any] = state.current_completion_snapshot.model_dump()
    return whole


def thoughts(message: dict[str, Any]) -> tuple[str | None, list[tuple[str, str]]]:
    blocks = message.get("thinking_blocks", [])
    signed = [(block["thinking"], block["signature"]) for block in blocks]
    return message.get("reasoning_content"), signed


def split(text: bytes, at: Sequence[int]) -> list[bytes]:
    ends = [0, *sorted(each % (len(text) + 1) for each in at), len(text)]
    return [text[first:last] for first, last in pairwise(ends)]


class TestAStream:
    def test_is_told_chunk_by_chunk(self) -> None:
        told = chunks(passed(WIRE.stream(asked()), [written(*HELLO)]))

        assert [each["choices"][0]["delta"] for each in told] == [
            {"role": "assistant", "content": "", "refusal": None},
            {"content": "hello"},
            {"content": " there"},
            {},
        ]
        assert [each["choices"][0]["finish_reason"] for each in told] == [None, None, None, "stop"]
        assert {each["id"] for each in told} == {"chatcmpl-msg_1"}
        assert {each["object"] for each in told} == {"chat.completion.chunk"}
        assert not any("usage" in each for each in told)

    def test_keeps_its_terminator_back(self) -> None:
        stream = WIRE.stream(asked())

        before = stream.feed(written(*HELLO))

        assert DONE not in before
        assert stream.end() == DONE

    def test_tells_what_was_used_to_who_asks(self) -> None:
        told = chunks(passed(WIRE.stream(asked(wants_usage=True)), [written(*HELLO)]))

        assert [each["usage"] for each in told[:-1]] == [None] * (len(told) - 1)
        assert told[-1]["choices"] == []
        assert told[-1]["usage"]["total_tokens"] == 15

    def test_adds_up_what_is_told_at_both_ends(self) -> None:
        stream = WIRE.stream(asked())
        events = [
            started(input_tokens=10, cache_read_input_tokens=4, output_tokens=1),
            ended(output_tokens=9, input_tokens=None, output_tokens_details={"thinking_tokens": 2}),
        ]

        stream.feed(written(*events))

        assert stream.counts == TokenCounts(input=14, cached=4, output=7, reasoning=2)

    def test_has_no_count_before_its_end_but_an_estimate(self) -> None:
        stream = WIRE.stream(asked())

        stream.feed(written(*HELLO[:4]))

        assert stream.counts is None
        assert stream.seen == TokenCounts(input=10, output=1)
        assert not stream.is_whole

    def test_estimates_a_token_a_piece_whatever_the_length_of_its_word(self) -> None:
        stream = WIRE.stream(asked())
        words = [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": " harbour"},
            }
        ] * 14

        stream.feed(written(*HELLO[:2], *words))

        assert stream.seen.output == 14

    def test_estimates_the_prompt_where_nobody_tells_it(self) -> None:
        stream = WIRE.stream(asked(wants_usage=True))

        told = passed(stream, [written({**START, "message": {"id": "1"}}, ended())])

        assert stream.seen == TokenCounts(input=7)
        assert stream.counts is None
        assert len(chunks(told)) == 2

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("size", [1, 2, 7, 10_000])
    def test_is_the_same_in_pieces_of_any_size(self, end: str, size: int) -> None:
        text = written(*HELLO, end=end)
        pieces = [text[at : at + size] for at in range(0, len(text), size)]

        assert passed(WIRE.stream(asked()), pieces) == passed(
            WIRE.stream(asked()), [written(*HELLO)]
        )

    def test_may_have_comments_and_data_in_many_lines(self) -> None:
        text = b": hello\n\nid: 7\nretry: 5\n" + written(START).replace(
            b'"message":', b'\ndata: "message":'
        )
        stream = WIRE.stream(asked())

        told = stream.feed(text)

        assert b'"role":"assistant"' in told

    def test_may_lack_its_last_words(self) -> None:
        text = written(*HELLO[:-1]).rstrip(b"\n")

        told = passed(WIRE.stream(asked(wants_usage=True)), [text])

        assert chunks(told)[-1]["usage"]["completion_tokens"] == 5


class TestCalls:
    def test_are_told_by_their_number_among_calls(self) -> None:
        events = [
            START,
            begun(0, type="thinking", thinking="", signature=""),
            more(0, type="thinking_delta", thinking="hm "),
            more(0, type="thinking_delta", thinking="well"),
            more(0, type="signature_delta", signature="c2ln"),
            stopped(0),
            begun(1, type="redacted_thinking", data="xx"),
            stopped(1),
            begun(2, type="text", text="So"),
            stopped(2),
            begun(3, type="tool_use", id="a", name="look", input={}),
            more(3, type="input_json_delta", partial_json=""),
            more(3, type="input_json_delta", partial_json='{"at'),
            more(3, type="input_json_delta", partial_json='": 1}'),
            stopped(3),
            begun(4, type="tool_use", id="b", name="rest", input={}),
            stopped(4),
            begun(5, type="server_tool_use", id="c", name="search", input={}),
            stopped(5),
            ended("tool_use", output_tokens=30),
        ]
        stream = WIRE.stream(asked())

        text = passed(stream, [written(*events)])

        choice = folded(text)["choices"][0]
        message = choice["message"]
        assert choice["finish_reason"] == "tool_calls"
        assert [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message["tool_calls"]
        ] == [("a", "look", '{"at": 1}'), ("b", "rest", "{}")]
        assert (message["content"], message["reasoning_content"]) == ("So", "hm well")
        assert message["thinking_blocks"] == [
            {"index": 0, "type": "thinking", "thinking": "hm well", "signature": "c2ln"},
            {"index": 1, "type": "redacted_thinking", "data": "xx"},
        ]
        assert stream.seen == TokenCounts(input=10, output=4, reasoning=2)


class TestABrokenStream:
    @pytest.mark.parametrize("count", range(1, len(HELLO) - 1))
    def test_that_was_cut_has_no_end(self, count: int) -> None:
        stream = WIRE.stream(asked())
        stream.feed(written(*HELLO[:count]))
        if stream.is_whole:
            assert stream.end() == DONE
            return

        with pytest.raises(BrokenStreamError):
            stream.end()

    def test_tells_what_came_before_an_error(self) -> None:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        stream = WIRE.stream(asked())

        told = stream.feed(written(*HELLO[:4], error, *HELLO[4:]))

        assert b"hello" in told
        assert b"there" not in told
        assert not stream.is_whole
        with pytest.raises(BrokenStreamError):
            stream.feed(b"\n")
        with pytest.raises(BrokenStreamError):
            stream.end()

    @pytest.mark.parametrize(
        "text",
        [
            b"data: <html>\n\n",
            b"data: []\n\n",
            b"data: [DONE]\n\n",
            b'data: {"type": "message_start", "message": 1}\n\n',
            b'data: {"type": "error"}\n\n',
            b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}\n\n',
        ],
    )
    def test_is_told_at_once_where_nothing_came_before(self, text: bytes) -> None:
        with pytest.raises(BrokenStreamError):
            WIRE.stream(asked()).feed(text)

    @pytest.mark.parametrize(
        "events",
        [
            [more(0, type="text_delta", text="x" * LONG_EVENT_BYTES)],
            [begun(number, type="text", text="") for number in range(MAX_OPEN_BLOCKS + 1)],
            [
                begun(0, type="thinking"),
                *[more(0, type="thinking_delta", thinking="x" * 200_000)] * 6,
            ],
        ],
    )
    def test_that_wants_more_memory_than_any_answer_is_given_up(
        self, events: list[dict[str, Any]]
    ) -> None:
        sent = written(START, *events, *HELLO[5:])

        with pytest.raises(BrokenStreamError):
            passed(WIRE.stream(asked()), [sent])


class TestTheScriptedUpstream:
    @pytest.mark.parametrize(
        ("model", "body"),
        [
            ("claude-upstream", {}),
            ("thinks", {}),
            ("calls-two-at-once", {"tools": TOOLS}),
            ("claude-upstream", {"stop": ["a"]}),
            ("knows-more-fields", {}),
            ("bills-nothing", {}),
            ("bills-more", {}),
        ],
    )
    def test_says_in_a_stream_what_it_says_in_one(
        self, model: str, body: dict[str, object]
    ) -> None:
        ask, reply = answered(Desk(), model, **body)
        plain = WIRE.read(ask, reply.body)
        ask, reply = answered(
            Desk(), model, stream=True, stream_options={"include_usage": True}, **body
        )
        stream = WIRE.stream(ask)

        text = passed(stream, [event.data for event in reply.events or ()])

        whole, streamed = json.loads(plain.body), folded(text)
        ours, theirs = whole["choices"][0], streamed["choices"][0]
        assert stream.counts == plain.counts
        assert theirs["finish_reason"] == ours["finish_reason"]
        assert (theirs["message"]["content"] or None) == ours["message"]["content"]
        assert thoughts(theirs["message"]) == thoughts(ours["message"])
        assert [
            (call["function"]["name"], call["function"]["arguments"])
            for call in theirs["message"]["tool_calls"] or ()
        ] == [
            (call["function"]["name"], call["function"]["arguments"])
            for call in ours["message"].get("tool_calls", ())
        ]
        if plain.counts is not None:
            assert streamed["usage"]["total_tokens"] == whole["usage"]["total_tokens"]

    def test_fails_midway(self) -> None:
        ask, reply = answered(Desk(), "fails-midway", stream=True)
        stream = WIRE.stream(ask)

        with pytest.raises(BrokenStreamError):
            passed(stream, [event.data for event in reply.events or ()])
        assert stream.seen.output > 0


@given(
    st.lists(st.text(max_size=20), max_size=6),
    st.lists(st.integers(min_value=0), max_size=40),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_any_words_in_any_pieces_are_the_same_words(
    words: list[str],
    at: list[int],
    end: str,
    wants_usage: bool,  # noqa: FBT001  # hypothesis passes by position
) -> None:
    text = written(
        START,
        begun(0, type="text", text=""),
        *(more(0, type="text_delta", text=each) for each in words),
        stopped(0),
        ended(output_tokens=5),
        end=end,
    )

    stream = WIRE.stream(asked(wants_usage=wants_usage))
    told = passed(stream, split(text, at))

    assert (folded(told)["choices"][0]["message"]["content"] or "") == "".join(words)
    assert stream.counts == TokenCounts(input=10, output=5)


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=10))
def test_no_bytes_are_more_than_a_broken_stream(text: bytes, at: list[int]) -> None:
    stream = WIRE.stream(asked())

    with pytest.raises(BrokenStreamError):
        passed(stream, split(text, at))
