"""Anthropic's events as they come, told as the chunks of a stream of OpenAI's."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from maas.inference.domain.anthropic_answer import (
    count_usage,
    dump,
    finish_of,
    head_of,
    tell_call,
    tell_usage,
)
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.estimates import Pieces, count_text
from maas.inference.domain.sse import LONG_EVENT_BYTES, EventCutter, data_of, split_events
from maas.inference.domain.wire import BrokenStreamError

_DONE: Final = b"data: [DONE]\n\n"

MAX_BLOCK_BYTES: Final = 1024 * 1024
"""Of the words of one block, which are kept until it ends."""

MAX_OPEN_BLOCKS: Final = 8
"""At a time; Anthropic tells one after another."""


@dataclass(slots=True)
class _Open:
    """A block that is being told: a call by its number among calls, a thought with its words."""

    block: dict[str, object]
    call: int | None = None
    words: bytearray = field(default_factory=bytearray)

    def say(self, text: str) -> None:
        self.words += text.encode("utf-8", "surrogatepass")
        if len(self.words) > MAX_BLOCK_BYTES:
            raise BrokenStreamError


@dataclass(slots=True, kw_only=True)
class AnthropicStream:
    """One streamed message on its way to the caller."""

    ask: Ask
    made_at: int
    is_whole: bool = field(default=False, init=False)
    is_over: bool = field(default=False, init=False)
    _cutter: EventCutter = field(default_factory=EventCutter, init=False)
    _head: dict[str, object] = field(default_factory=dict, init=False)
    _open: dict[object, _Open] = field(default_factory=dict, init=False)
    _calls: int = field(default=0, init=False)
    _thoughts: int = field(default=0, init=False)
    _usage: dict[str, object] = field(default_factory=dict, init=False)
    _is_counted: bool = field(default=False, init=False)
    _has_told_usage: bool = field(default=False, init=False)
    _is_broken: bool = field(default=False, init=False)
    _seen_output: Pieces = field(default_factory=Pieces, init=False)
    _seen_reasoning: Pieces = field(default_factory=Pieces, init=False)

    @property
    def counts(self) -> TokenCounts | None:
        return count_usage(self._usage) if self._is_counted and self.is_whole else None

    @property
    def seen(self) -> TokenCounts:
        """What came, by estimate; what was read is the supplier's own count, if it told one."""
        read = count_usage({**self._usage, "output_tokens": 0, "output_tokens_details": None})
        return TokenCounts(
            input=self.ask.likely_input if read is None else read.input,
            cached=0 if read is None else read.cached,
            output=self._seen_output.tokens,
            reasoning=self._seen_reasoning.tokens,
        )

    def feed(self, chunk: bytes) -> bytes:
        return self._tell(self._cutter.cut(chunk))

    def end(self) -> bytes:
        # The last event may lack the empty line after it.
        told = self._tell(self._cutter.rest)
        if self._is_broken or not self.is_whole:
            raise BrokenStreamError
        return told + self._tell_usage() + _DONE

    def _tell(self, events: bytes) -> bytes:
        """Tell what came before an error as well; the error comes with the next call."""
        # It comes in far shorter pieces: this much is one event, and longer than any is.
        if self._is_broken or len(events) > LONG_EVENT_BYTES:
            raise BrokenStreamError
        told: list[bytes] = []
        try:
            for event in split_events(events):
                data = data_of(event)
                if data is not None:
                    told.extend(self._event(_parse(data)))
        except BrokenStreamError:
            self._is_broken = True
            if not told:
                raise
        return b"".join(told)

    def _event(self, event: Mapping[str, object]) -> Iterator[bytes]:
        match event.get("type"):
            case "message_start":
                yield from self._start(_part(event, "message"))
            case "content_block_start":
                yield from self._start_block(event.get("index"), _part(event, "content_block"))
            case "content_block_delta":
                yield from self._delta(event.get("index"), _part(event, "delta"))
            case "content_block_stop":
                yield from self._stop_block(event.get("index"))
            case "message_delta":
                yield from self._end_message(_part(event, "delta"), event.get("usage"))
            case "message_stop":
                self.is_over = True
                yield self._tell_usage()
            case _:
                # A ping, or what is not known yet: to be passed over, as Anthropic's guide says.
                return

    def _start(self, message: dict[str, object]) -> Iterator[bytes]:
        self._head = head_of(message, "chat.completion.chunk", made_at=self.made_at)
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._usage = dict(usage)
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _start_block(self, index: object, block: dict[str, object]) -> Iterator[bytes]:
        if len(self._open) >= MAX_OPEN_BLOCKS:
            raise BrokenStreamError
        opened = self._open[index] = _Open(block)
        match block.get("type"):
            case "text":
                if block.get("text"):
                    yield self._text("content", block["text"])
            case "tool_use":
                opened.call = self._calls
                self._calls += 1
                yield self._chunk({"tool_calls": [{"index": opened.call, **tell_call(block, "")}]})
            case "redacted_thinking":
                yield self._thought(block)
            case _:
                return

    def _delta(self, index: object, delta: Mapping[str, object]) -> Iterator[bytes]:
        opened = self._open.get(index)
        match delta.get("type"):
            case "text_delta":
                yield self._text("content", delta.get("text"))
            case "thinking_delta":
                if opened is not None:
                    opened.say(str(delta.get("thinking")))
                yield self._text("reasoning_content", delta.get("thinking"))
            case "signature_delta":
                if opened is not None:
                    opened.block["signature"] = delta.get("signature")
            case "input_json_delta":
                if opened is not None and opened.call is not None and delta.get("partial_json"):
                    yield self._arguments(opened, str(delta["partial_json"]))
            case _:
                return

    def _stop_block(self, index: object) -> Iterator[bytes]:
        opened = self._open.pop(index, None)
        if opened is None:
            return
        if opened.call is not None and not opened.words:
            yield self._arguments(opened, json.dumps(opened.block.get("input") or {}))
        if opened.block.get("type") == "thinking":
            whole = {**opened.block, "thinking": opened.words.decode("utf-8", "surrogatepass")}
            yield self._thought(whole)

    def _end_message(self, delta: Mapping[str, object], usage: object) -> Iterator[bytes]:
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})
            self._is_counted = "output_tokens" in usage
        if delta.get("stop_reason") is not None and not self.is_whole:
            self.is_whole = True
            yield self._chunk({}, finish=finish_of(delta["stop_reason"]))

    def _text(self, name: str, text: object) -> bytes:
        words = str(text)
        seen = self._seen_output if name == "content" else self._seen_reasoning
        seen.add(count_text(words))
        return self._chunk({name: words})

    def _arguments(self, opened: _Open, piece: str) -> bytes:
        opened.say(piece)
        self._seen_output.add(count_text(piece))
        call = {"index": opened.call, "function": {"arguments": piece}}
        return self._chunk({"tool_calls": [call]})

    def _thought(self, block: Mapping[str, object]) -> bytes:
        """Tell a thought whole; OpenAI's client wants what it puts together to be numbered."""
        self._thoughts += 1
        return self._chunk({"thinking_blocks": [{"index": self._thoughts - 1, **block}]})

    def _chunk(self, delta: Mapping[str, object], *, finish: str | None = None) -> bytes:
        if not self._head:
            raise BrokenStreamError
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self.ask.wants_usage else {}
        return b"data: " + dump({**self._head, "choices": [choice], **usage}) + b"\n\n"

    def _tell_usage(self) -> bytes:
        """Tell what was used in a chunk of its own, once, if the caller asked for it."""
        counts = self.counts
        if not self.ask.wants_usage or self._has_told_usage or counts is None:
            return b""
        self._has_told_usage = True
        usage = tell_usage(counts, self._usage)
        return b"data: " + dump({**self._head, "choices": [], "usage": usage}) + b"\n\n"


def _parse(data: bytes) -> dict[str, object]:
    try:
        event: object = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise BrokenStreamError from exc
    if not isinstance(event, dict) or event.get("type") == "error":
        raise BrokenStreamError
    return event


def _part(event: Mapping[str, object], name: str) -> dict[str, object]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise BrokenStreamError
    return value
