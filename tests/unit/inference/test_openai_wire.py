"""OpenAI's wire: what is changed of a request, and what is read of an answer on its way."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from maas.inference.domain.asking import InvalidCallError, read_ask, read_long_ask
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.openai_usage import read_usage
from maas.inference.domain.openai_wire import DONE, OpenAIStream, OpenAIWire
from maas.inference.domain.sse import LONG_EVENT_BYTES, MAX_EVENT_BYTES, EventCutter, data_of
from maas.inference.domain.wire import BrokenStreamError
from maas.inference.public import CallKind
from tests.factories.routes import make_target

WIRE = OpenAIWire()
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


def ask_of(kind: CallKind = "chat", /, **fields: Any) -> Ask:
    return read_ask(kind, {"model": "bot", **fields})


def spelled(ask: Ask, *, most: int | None = 50, kind: Any = "vllm") -> dict[str, Any]:
    endpoint = replace(make_target(model="real-name").endpoint, provider_kind=kind)
    body: dict[str, Any] = json.loads(WIRE.spell(ask, endpoint, most_output=most))
    return body


def event(choices: Sequence[object] = (), **fields: object) -> bytes:
    return b"data: " + json.dumps({"id": "1", "choices": choices, **fields}).encode() + b"\n\n"


def said(text: str, *, finish: str | None = None) -> bytes:
    return event([{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


def counted(output: int, *, finish: str | None = None) -> bytes:
    """Write a piece of a stream that counts all the while."""
    choice = {"delta": {"content": "a"}, "finish_reason": finish}
    return event([choice], usage={**USAGE, "completion_tokens": output})


class TestSpelling:
    def test_all_but_the_name_and_the_limit_stays_as_it_was(self) -> None:
        fields = {
            "messages": [{"role": "user", "content": "é\u0000河"}],
            "top_k": 3,
            "x": [1.5, None],
        }

        assert spelled(ask_of(**fields)) == {"model": "real-name", **fields, "max_tokens": 50}

    @pytest.mark.parametrize(
        ("given", "limits"),
        [
            ({"max_tokens": 99}, {"max_tokens": 50}),
            ({"max_tokens": 7}, {"max_tokens": 7}),
            ({"max_completion_tokens": 99}, {"max_completion_tokens": 50}),
            (
                {"max_completion_tokens": 9, "max_tokens": 99},
                {"max_completion_tokens": 9, "max_tokens": 50},
            ),
        ],
    )
    def test_limits_are_cut_in_the_callers_own_field(
        self, given: dict[str, int], limits: dict[str, int]
    ) -> None:
        assert spelled(ask_of(**given)) == {"model": "real-name", **limits}

    @pytest.mark.parametrize("kind", ["openai", "azure"])
    def test_the_newer_field_is_set_where_it_alone_is_known(self, kind: str) -> None:
        assert spelled(ask_of(), kind=kind)["max_completion_tokens"] == 50
        assert spelled(ask_of("completions", prompt="a"), kind=kind)["max_tokens"] == 50

    def test_embeddings_have_no_limit(self) -> None:
        assert spelled(ask_of("embeddings", input="a")) == {"model": "real-name", "input": "a"}

    def test_streams_are_asked_what_they_used(self) -> None:
        body = spelled(ask_of(stream=True, stream_options={"x": 1}))

        assert body["stream_options"] == {"x": 1, "include_usage": True}

    @pytest.mark.parametrize("fields", [{}, {"max_tokens": 99}, {"stream": True, "x": [1, {}]}])
    def test_what_was_written_before_says_the_same(self, fields: dict[str, Any]) -> None:
        long = read_long_ask("chat", {"model": "bot", **fields})

        assert spelled(long) == spelled(ask_of(**fields))


class TestAsking:
    @pytest.mark.parametrize(
        "fields",
        [
            {"model": ""},
            {"model": 7},
            {"model": "x" * 257},
            {"n": 0},
            {"n": True},
            {"n": 1.5},
            {"max_tokens": 0},
            {"max_tokens": "9"},
            {"max_completion_tokens": -1},
            {"stream": "yes"},
            {"stream": True, "stream_options": []},
        ],
    )
    def test_what_decides_on_price_is_read_strictly(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidCallError) as refusal:
            ask_of(**fields)

        assert refusal.value.loc[1] in fields

    def test_a_body_that_is_no_object_is_refused(self) -> None:
        with pytest.raises(InvalidCallError):
            read_ask("chat", [1])

    def test_every_answer_that_is_made_counts(self) -> None:
        prompts = ["a", "b", "c"]

        assert ask_of("completions", prompt=prompts, n=2, best_of=4).choices == 12
        assert ask_of("completions", prompt=[1, 2, 3]).choices == 1
        assert ask_of("completions", prompt=[[1], [2]]).choices == 2
        assert ask_of(n=3).choices == 3
        assert ask_of("embeddings", input=prompts, n=3).choices == 1

    def test_completions_are_short_unless_somebody_says_more(self) -> None:
        assert ask_of("completions", prompt="a").most_output == 16
        assert ask_of().most_output is None
        assert ask_of(max_tokens=3, max_completion_tokens=9).most_output == 9


class TestUsage:
    def test_reasoning_is_told_apart_whether_it_is_within_or_beside(self) -> None:
        within = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}
        beside = {**within, "total_tokens": 16}

        assert read_usage(within) == TokenCounts(input=9, output=3, reasoning=2)
        assert read_usage(beside) == TokenCounts(input=9, output=5, reasoning=2)

    def test_what_was_cached_is_part_of_the_input(self) -> None:
        ours = {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}
        deepseeks = {**USAGE, "prompt_cache_hit_tokens": 4}

        assert read_usage(ours) == read_usage(deepseeks) == TokenCounts(input=9, cached=4, output=5)

    @pytest.mark.parametrize(
        "usage",
        [
            None,
            [],
            {},
            {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            {**USAGE, "prompt_tokens": -1},
            {**USAGE, "prompt_tokens": None},
            {**USAGE, "prompt_tokens": True},
            {**USAGE, "completion_tokens": 1.5},
            {**USAGE, "completion_tokens": 10**13},
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 10}},
            {**USAGE, "prompt_tokens_details": 7},
            {**USAGE, "completion_tokens_details": {"reasoning_tokens": 6}},
        ],
    )
    def test_nonsense_counts_as_none(self, usage: object) -> None:
        assert read_usage(usage) is None


class TestPlainAnswers:
    def test_they_pass_byte_for_byte_and_tell_what_they_used(self) -> None:
        body = json.dumps({"choices": [], "usage": USAGE, "x": 1.10}, indent=3).encode()

        told = WIRE.read(ask_of(messages=[]), body)

        assert (told.body, told.counts) == (body, TokenCounts(input=9, output=5))

    def test_without_usage_all_texts_of_an_answer_count(self) -> None:
        call = {"function": {"name": "f", "arguments": "x" * 40}}
        message = {"content": "y" * 40, "reasoning_content": "z" * 40, "tool_calls": [call]}
        body = json.dumps({"choices": [{"message": message}, {"text": "w" * 40}]}).encode()

        told = WIRE.read(ask_of(messages=[{"content": "a" * 40}]), body)

        assert told.counts is None
        assert (told.seen.input, told.seen.output) == (14, 40)

    def test_an_answer_of_no_tokens_has_no_words(self) -> None:
        none = {**USAGE, "completion_tokens": 0}
        called = {"function_call": {"name": "f", "arguments": "x" * 40}}

        for message, output in (({"content": "y" * 40}, 10), (called, 10), ({"content": ""}, 0)):
            body = json.dumps({"choices": [{"message": message}], "usage": none}).encode()
            told = WIRE.read(ask_of(messages=[]), body)
            assert (told.counts is None, told.seen.output) == (output > 0, output)

    @pytest.mark.parametrize(
        "body", [b"", b"<html>", b'{"choices"', b"[]", b'{"choices": null}', b'{"data": []}']
    )
    def test_what_is_no_answer_is_none(self, body: bytes) -> None:
        with pytest.raises(BrokenStreamError):
            WIRE.read(ask_of(), body)

    @pytest.mark.parametrize("usage_first", [True, False])
    def test_long_lists_of_vectors_are_not_parsed_but_for_what_they_used(
        self, *, usage_first: bool
    ) -> None:
        vectors = b'"data":[' + b"0.5," * 100_000 + b"1]"
        usage = b'"usage": {"prompt_tokens": 7, "total_tokens": 7}'
        parts = [usage, vectors] if usage_first else [vectors, usage]

        told = WIRE.read(ask_of("embeddings", input="a"), b"{" + b",".join(parts) + b"}")

        assert told.counts == TokenCounts(input=7)

    @pytest.mark.parametrize(("limits", "output"), [({}, 50_000), ({"max_tokens": 70}, 70)])
    def test_long_answers_are_not_parsed_and_guessed_by_their_length(
        self, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], output: int
    ) -> None:
        monkeypatch.setattr(json, "loads", None)
        answer = b'{"choices":[0],"x":[' + b"{}," * 100_000 + b"1]"
        usage = b',"usage": {"prompt_tokens": 7, "completion_tokens": 5}'

        told = WIRE.read(ask_of(messages=[], **limits), answer + usage + b"}")
        untold = WIRE.read(ask_of(messages=[], **limits), answer + b"}")

        assert told.counts == TokenCounts(input=7, output=5)
        assert (untold.counts, untold.seen.output) == (None, output)

    def test_what_is_said_of_a_request_is_found_in_each_form(self) -> None:
        bodies = [
            b'{"error": {"message": "No.", "param": "n", "code": "bad"}}',
            b'{"object": "error", "message": "No.", "param": "n", "code": "bad"}',
        ]

        found = [WIRE.refusal(400, body) for body in bodies]

        assert found[0] == found[1]
        assert found[0] is not None
        assert (found[0].message, found[0].param, found[0].code) == ("No.", "n", "bad")
        assert [WIRE.refusal(400, body) for body in (b"<html>", b"7", b'{"error": {}}')] == [
            None
        ] * 3


def played(stream: OpenAIStream, sent: bytes, *, size: int) -> bytes:
    """Feed a stream in pieces of some size, and give all that the caller got."""
    got = b"".join(stream.feed(sent[start : start + size]) for start in range(0, len(sent), size))
    return got + stream.end()


class TestStreams:
    @pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
    @pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
    def test_bytes_pass_as_they_are_however_they_are_split(self, size: int, line: bytes) -> None:
        answer = b": hello\n\n" + said("a") + b"event: x\nid: 7\n" + said("b", finish="stop")
        answer = answer.replace(b"\n", line)
        usage = event(usage=USAGE).replace(b"\n", line)
        done = DONE.replace(b"\n", line)
        stream = OpenAIStream(ask_of(stream=True))

        got = played(stream, answer + usage + done, size=size)

        assert got.replace(line, b"\n") == answer.replace(line, b"\n") + DONE
        assert stream.counts == TokenCounts(input=9, output=5)

    def test_who_asked_gets_the_usage_too(self) -> None:
        ask = ask_of(stream=True, stream_options={"include_usage": True})
        answer = said("a", finish="stop") + event(usage=USAGE)

        assert played(OpenAIStream(ask), answer + DONE, size=9) == answer + DONE

    def test_words_that_look_like_ours_are_only_words(self) -> None:
        tricky = said('[DONE] "usage": {"prompt_tokens": 1} "error": {} "finish_reason": "stop"')
        stream = OpenAIStream(ask_of(stream=True))

        assert stream.feed(tricky) == tricky
        assert (stream.counts, stream.is_whole) == (None, False)

    def test_usage_in_every_chunk_passes_and_the_last_counts(self) -> None:
        chunks = [counted(1), counted(2, finish="stop")]
        stream = OpenAIStream(ask_of(stream=True))

        assert b"".join(map(stream.feed, chunks)) == b"".join(chunks)
        assert stream.counts == TokenCounts(input=9, output=2)

    @pytest.mark.parametrize("told", [0, 1])
    def test_but_not_of_an_answer_that_was_cut(self, told: int) -> None:
        stream = OpenAIStream(ask_of(stream=True))
        stream.feed(counted(told))
        for _ in range(80):
            stream.feed(said(" word"))

        assert stream.counts is None
        assert stream.seen == TokenCounts(input=9, output=81)

    def test_nor_where_more_came_after_it(self) -> None:
        stream = OpenAIStream(ask_of(stream=True))

        played(stream, counted(1) + said(" word") + said("", finish="stop"), size=50)

        assert (stream.counts, stream.seen.output) == (None, 2)

    def test_a_count_that_goes_back_is_no_better_one(self) -> None:
        less = {"prompt_tokens": 1, "completion_tokens": 1}
        stream = OpenAIStream(ask_of(stream=True))

        played(stream, said("a", finish="stop") + event(usage=USAGE) + event(usage=less), size=50)

        assert stream.counts == TokenCounts(input=9, output=5)

    def test_the_older_calls_of_functions_count(self) -> None:
        stream = OpenAIStream(ask_of(stream=True))
        for _ in range(10):
            stream.feed(event([{"delta": {"function_call": {"arguments": '{"a'}}}]))

        assert stream.seen.output == 10

    def test_an_answer_is_whole_without_its_terminator_but_not_without_its_end(self) -> None:
        whole, cut = OpenAIStream(ask_of(stream=True)), OpenAIStream(ask_of(stream=True, n=2))
        for stream in (whole, cut):
            stream.feed(said("a", finish="stop"))

        assert whole.end() == DONE
        with pytest.raises(BrokenStreamError):
            cut.end()

    def test_a_last_event_without_its_blank_line_still_counts(self) -> None:
        stream = OpenAIStream(ask_of(stream=True))
        stream.feed(said("a"))
        stream.feed(said("b", finish="stop").rstrip())

        assert stream.end() == said("b", finish="stop") + DONE

    @pytest.mark.parametrize(
        "sent",
        [
            b"<!doctype html>",
            b'{"choices": []}',
            b"\n [1]",
            b'data: {"error": {"message": "sk-secret"}}\n\n',
            b'data: {"usage": {broken\n\n',
        ],
    )
    def test_what_is_no_stream_or_an_error_breaks_off(self, sent: bytes) -> None:
        with pytest.raises(BrokenStreamError):
            OpenAIStream(ask_of(stream=True)).feed(sent)

    def test_what_came_is_estimated_by_pieces_or_by_text_if_they_are_long(self) -> None:
        short, long = OpenAIStream(ask_of(stream=True)), OpenAIStream(ask_of(stream=True))
        for _ in range(10):
            short.feed(said(" word"))
            long.feed(said("x" * 400))

        assert (short.seen.output, long.seen.output) == (10, 1_000)

    @pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
    def test_long_events_pass_without_being_parsed(
        self, monkeypatch: pytest.MonkeyPatch, line: bytes
    ) -> None:
        picture = "x" * LONG_EVENT_BYTES
        told = event([{"delta": {"images": [picture]}, "finish_reason": "stop"}], usage=USAGE)
        long = told.replace(b"\n", line)
        monkeypatch.setattr(json, "loads", None)
        stream = OpenAIStream(ask_of(stream=True))

        assert played(stream, long + DONE.replace(b"\n", line), size=16_384) == long + DONE
        assert stream.counts == TokenCounts(input=9, output=5)
        assert stream.seen.output == 50_000

    def test_what_waits_to_be_counted_is_bounded(self) -> None:
        stream = OpenAIStream(ask_of(stream=True))
        for _ in range(1_000):
            stream.feed(said("x" * 200))

        assert stream._unread_bytes < 70_000
        assert stream.seen.output == 50_000


class TestCutting:
    def test_an_event_that_never_ends_is_given_up(self) -> None:
        cutter = EventCutter()
        for _ in range(16):
            cutter.cut(b"x" * (MAX_EVENT_BYTES // 16))

        with pytest.raises(BrokenStreamError):
            cutter.cut(b"x")

    def test_several_data_lines_are_one_text(self) -> None:
        assert data_of(b"data: {\ndata:1\nid: 3\ndata: }\n\n") == b"{\n1\n}"
        assert data_of(b": only a comment\n\n") is None
