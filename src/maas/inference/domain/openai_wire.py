"""OpenAI's wire format, which callers speak too: most of it passes through untouched."""

import json
import re
from typing import Final

from maas.inference.domain.call import REWRITTEN, Ask, TokenCounts
from maas.inference.domain.estimates import TOKENS_A_PART, Pieces, count_text
from maas.inference.domain.openai_usage import read_usage
from maas.inference.domain.route import Endpoint
from maas.inference.domain.sse import LONG_EVENT_BYTES, EventCutter, data_of, split_events
from maas.inference.domain.wire import BrokenStreamError, Refusal, Told, WireStream

DONE: Final = b"data: [DONE]\n\n"
MAX_MESSAGE_CHARS: Final = 2_000

OUTPUT_FIELDS: Final = ("max_completion_tokens", "max_tokens")
"""Both say how long an answer may be; the second is the older name, and most suppliers' own."""

_KNOW_THE_NEWER: Final = frozenset({"openai", "azure"})

PARSED_WHOLE_BYTES: Final = 256 * 1024
"""Of longer answers only what they used is read: the event loop has others to serve."""

TELLING_BYTES: Final = 1024 * 1024
"""So far from either end of a long answer it may say what it used."""

MAX_USAGE_BYTES: Final = 4_096

BYTES_A_TOKEN: Final = 4

UNREAD_BYTES: Final = 64 * 1024
"""So much of a stream waits to be counted, which is only done if the upstream does not."""

_TELLING: Final = re.compile(
    rb'\[DONE\]|"(?:usage|error)"\s*+:\s*+[^n\s]|"finish_reason"\s*+:\s*+"'
)
_USAGE: Final = b'"usage"'
_ENDED: Final = re.compile(rb'"finish_reason"\s*+:\s*+"')
_CHOICES: Final = b'"choices"'
_TEXTS: Final = ("content", "reasoning_content", "reasoning", "refusal")
_LISTS: Final = {"chat": "choices", "completions": "choices", "embeddings": "data"}
_decode: Final = json.JSONDecoder().raw_decode


class OpenAIWire:
    def spell(self, ask: Ask, endpoint: Endpoint, *, most_output: int | None) -> bytes:
        given = ask.body
        if ask.written is not None:
            given = {name: given[name] for name in REWRITTEN if name in given}
        body = {**given, "model": endpoint.model}
        if ask.kind != "embeddings" and most_output is not None:
            _limit_output(body, ask, endpoint, most_output)
        if ask.is_stream:
            options = body.get("stream_options")
            body["stream_options"] = {
                **(options if isinstance(options, dict) else {}),
                "include_usage": True,
            }
        spelled = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return b"%b,%b}" % (spelled[:-1], ask.written) if ask.written else spelled

    def read(self, ask: Ask, body: bytes) -> Told:
        if len(body) > PARSED_WHOLE_BYTES:
            return _read_long(ask, body)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise BrokenStreamError from exc
        if not isinstance(answer, dict) or not isinstance(answer.get(_LISTS[ask.kind]), list):
            raise BrokenStreamError
        counts = read_usage(answer.get("usage"))
        if counts is not None and counts.total > counts.input:
            return Told(body=body, counts=counts, seen=counts)
        # Nothing was counted, or no answer where there may be one.
        seen = TokenCounts(input=ask.likely_input, output=_count_answers(answer))
        counts = None if seen.output else counts
        return Told(body=body, counts=counts, seen=counts or seen)

    def stream(self, ask: Ask) -> WireStream:
        return OpenAIStream(ask)

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            return None
        error = told.get("error", told) if isinstance(told, dict) else None
        if isinstance(error, str):
            error = {"message": error}
        message = error.get("message") if isinstance(error, dict) else None
        if not isinstance(error, dict) or not isinstance(message, str) or not message:
            return None
        return Refusal(
            status=status,
            message=message[:MAX_MESSAGE_CHARS],
            param=_short(error.get("param")),
            code=_short(error.get("code")),
        )


def _limit_output(body: dict[str, object], ask: Ask, endpoint: Endpoint, most: int) -> None:
    given = [name for name in OUTPUT_FIELDS if body.get(name) is not None]
    for name in given:
        value = body[name]
        if isinstance(value, int) and value > most:
            body[name] = most
    if not given:
        is_newer = ask.kind == "chat" and endpoint.provider_kind in _KNOW_THE_NEWER
        body[OUTPUT_FIELDS[0 if is_newer else 1]] = most


def _short(value: object) -> str | None:
    return value[:100] if isinstance(value, str) and value else None


def _read_long(ask: Ask, body: bytes) -> Told:
    """Read no more of a long answer than what it used."""
    is_object = body[:1_000].lstrip()[:1] == b"{" and body[-1_000:].rstrip()[-1:] == b"}"
    if not is_object or f'"{_LISTS[ask.kind]}"'.encode() not in body:
        raise BrokenStreamError
    counts = _find_usage(body[-TELLING_BYTES:]) or _find_usage(body[:TELLING_BYTES])
    output = 0 if ask.kind == "embeddings" else _guess(ask, body)
    seen = counts or TokenCounts(input=ask.likely_input, output=output)
    return Told(body=body, counts=counts, seen=seen)


def _find_usage(told: bytes) -> TokenCounts | None:
    at = told.rfind(_USAGE)
    if at < 0:
        return None
    text = told[at + len(_USAGE) : at + MAX_USAGE_BYTES].decode("utf-8", "replace")
    try:
        return read_usage(_decode(text.lstrip(" \t\r\n:"))[0])
    except (ValueError, RecursionError):
        return None


def _guess(ask: Ask, told: bytes) -> int:
    """Estimate what is too long to be read, which may be a picture instead of a text."""
    most = (ask.most_output or TOKENS_A_PART) * ask.choices
    return min(len(told) // BYTES_A_TOKEN, most)


def _count_answers(answer: dict[str, object]) -> int:
    choices = answer.get("choices")
    return sum(map(_count_choice, choices)) if isinstance(choices, list) else 0


def _count_choice(choice: object) -> int:
    """Estimate one answer, or one piece of it: all texts in it but names and ids."""
    if not isinstance(choice, dict):
        return 0
    told = choice.get("delta") or choice.get("message")
    if not isinstance(told, dict):
        text = choice.get("text")
        return count_text(text) if isinstance(text, str) else 0
    counted = sum(count_text(text) for name in _TEXTS if isinstance(text := told.get(name), str))
    calls = told.get("tool_calls")
    for call in (told.get("function_call"), *(calls if isinstance(calls, list) else ())):
        # The older form has no function around it.
        function = call.get("function", call) if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        counted += count_text(arguments) if isinstance(arguments, str) else 0
    return counted


class OpenAIStream:
    """The `WireStream` of a streamed answer: looks only at events that may tell something."""

    __slots__ = (
        "_ask",
        "_begun",
        "_counts",
        "_cutter",
        "_ended",
        "_has_done",
        "_is_stale",
        "_seen",
        "_unread",
        "_unread_bytes",
    )

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._cutter = EventCutter()
        self._counts: TokenCounts | None = None
        self._begun = self._has_done = self._is_stale = False
        self._ended = self._unread_bytes = 0
        self._seen = Pieces()
        self._unread: list[bytes] = []

    @property
    def counts(self) -> TokenCounts | None:
        """Tell what was counted of the whole answer: some count all the while."""
        counts = self._counts
        if counts is None or self._is_stale or not self.is_whole:
            return None
        if counts.total == counts.input and self._seen_output():
            return None
        return counts

    @property
    def seen(self) -> TokenCounts:
        output, told = self._seen_output(), self._counts
        if told is None:
            return TokenCounts(input=self._ask.likely_input, output=output)
        return TokenCounts(
            input=told.input or self._ask.likely_input,
            cached=told.cached,
            output=max(told.output, output - told.reasoning),
            reasoning=told.reasoning,
        )

    @property
    def is_whole(self) -> bool:
        return self._has_done or self._ended >= self._ask.choices

    @property
    def is_over(self) -> bool:
        return self._has_done

    def _seen_output(self) -> int:
        self._read_on()
        return self._seen.tokens

    def feed(self, chunk: bytes) -> bytes:
        if not self._begun:
            self._expect_events(chunk)
        whole = self._cutter.cut(chunk)
        if not whole:
            return b""
        if len(whole) <= LONG_EVENT_BYTES and _TELLING.search(whole) is None:
            self._leave_unread(whole)
            return whole
        return b"".join(event for event in split_events(whole) if self._passes(event))

    def end(self) -> bytes:
        rest = self._cutter.rest
        if rest.strip():
            # The last event need not have its blank line.
            last = rest.rstrip(b"\r\n") + b"\n\n" if self._passes(rest) else b""
        else:
            last = b""
        if not self.is_whole:
            raise BrokenStreamError
        return last + DONE

    def _expect_events(self, chunk: bytes) -> None:
        """Refuse what is no stream of events, a page or a plain answer say."""
        text = chunk.lstrip(b"\xef\xbb\xbf \t\r\n")
        if text[:1] in {b"{", b"<", b"["}:
            raise BrokenStreamError
        self._begun = bool(text)

    def _passes(self, event: bytes) -> bool:
        """Take in one event, and tell whether the caller gets it.

        Raises:
            BrokenStreamError: it is an error.
        """
        if len(event) > LONG_EVENT_BYTES:
            self._look_at_long(event)
            return True
        if _TELLING.search(event) is None:
            self._leave_unread(event)
            return True
        data = data_of(event)
        if data is None:
            return True
        if data.strip() == b"[DONE]":
            self._has_done = True
            return False
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise BrokenStreamError from exc
        return self._takes(chunk) if isinstance(chunk, dict) else True

    def _look_at_long(self, event: bytes) -> None:
        self._counts = _find_usage(event[-TELLING_BYTES:]) or self._counts
        self._ended += _ENDED.search(event) is not None
        self._seen.add(_guess(self._ask, event))

    def _takes(self, chunk: dict[str, object]) -> bool:
        if chunk.get("error"):
            raise BrokenStreamError
        choices = chunk.get("choices")
        if isinstance(choices, list):
            self._is_stale |= self._count(choices) and self._counts is not None
        counts, told = read_usage(chunk.get("usage")), self._counts
        if counts is not None and (told is None or counts.total >= told.total):
            self._counts, self._is_stale = counts, False
        if not choices:
            # It came because we asked for it; a caller who asked gets it too.
            return chunk.get("usage") is None or self._ask.wants_usage
        return True

    def _count(self, choices: list[object]) -> bool:
        """Count pieces of answers; tell whether there was anything in them."""
        before = self._seen.count
        for choice in choices:
            self._seen.add(_count_choice(choice))
            if isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str):
                self._ended += 1
        return self._seen.count > before

    def _leave_unread(self, whole: bytes) -> None:
        if self._counts is not None and _CHOICES in whole:
            self._note_more(whole)
            return
        self._unread.append(whole)
        self._unread_bytes += len(whole)
        if self._unread_bytes > UNREAD_BYTES:
            self._read_on()

    def _note_more(self, whole: bytes) -> None:
        """Note what comes after a count: if it is anything, that was not of the whole answer."""
        self._read_on()
        before = self._seen.count
        self._unread.append(whole)
        self._read_on()
        self._is_stale |= self._seen.count > before

    def _read_on(self) -> None:
        """Count what waits; what cannot be read is none of the answer."""
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for whole in unread:
            for event in split_events(whole):
                data = data_of(event)
                try:
                    chunk = json.loads(data) if data else None
                except (ValueError, RecursionError):
                    continue
                choices = chunk.get("choices") if isinstance(chunk, dict) else None
                if isinstance(choices, list):
                    self._count(choices)
