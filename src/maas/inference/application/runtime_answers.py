"""Answers of a model's process, put into OpenAI's words: several into one, counted together."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from maas.inference.application.runtime_replies import ReplyReader, read_choice, read_event
from maas.inference.application.runtime_requests import Json, Plan, Share
from maas.shared.domain.ids import new_id

_PREFIXES: Final = {"chat": "chatcmpl", "completions": "cmpl"}
_DATA: Final = b"data:"
_TOO_LARGE: Final = "is too large to process"
_NOT_READ: Final = "Failed to parse"
"""What llama.cpp says as an error of its own, though it is the caller's."""


@dataclass(slots=True)
class Counted:
    """What all choices used; a prompt is counted once, however many choices it has."""

    prompt: int = 0
    completion: int = 0

    def add(self, share: Share, usage: Mapping[str, Any]) -> None:
        self.completion += usage["completion_tokens"]
        if share.has_new_prompt:
            self.prompt += usage["prompt_tokens"]

    def spell(self) -> Json:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": 0},
        }


def merge(plan: Plan, answers: Sequence[dict[str, Any]]) -> Json:
    """Make one answer of one for each share."""
    first = answers[0]
    if plan.kind == "embeddings":
        for item in first["data"]:
            item.pop("encoding_format", None)
        return first
    counted, choices = Counted(), []
    for share, answer in zip(plan.shares, answers, strict=True):
        counted.add(share, answer["usage"])
        choice = answer["choices"][0]
        choice["index"] = share.index
        if plan.kind == "completions":
            choice["logprobs"] = _legacy_logprobs(choice.get("logprobs"), start=0)
        elif plan.is_in_json:
            read_choice(choice)
        choices.append(choice)
    return {
        "id": _new_id(plan),
        "object": first["object"],
        "created": first["created"],
        "model": first["model"],
        "system_fingerprint": first.get("system_fingerprint"),
        "choices": choices,
        "usage": counted.spell(),
    }


@dataclass(slots=True)
class StreamShape:
    """Turns events of all shares into those of one stream."""

    plan: Plan
    _id: str = field(init=False)
    _counted: Counted = field(default_factory=Counted)
    _last: Json | None = None
    _offsets: dict[int, int] = field(default_factory=dict)
    _replies: dict[int, ReplyReader] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._id = _new_id(self.plan)

    def pass_on(self, share: Share, event: dict[str, Any]) -> Json | None:
        """Give what the caller is sent of an event, if anything."""
        usage = event.pop("usage", None)
        if usage is not None:
            self._counted.add(share, usage)
        event.pop("timings", None)
        event["id"] = self._id
        self._last = event
        if not event["choices"]:
            return None
        choice = event["choices"][0]
        choice["index"] = share.index
        if self.plan.kind == "completions":
            start = self._offsets.get(share.index, 0)
            choice["logprobs"] = _legacy_logprobs(choice.get("logprobs"), start=start)
            self._offsets[share.index] = start + len(choice["text"])
            return event
        if self.plan.is_in_json:
            reader = self._replies.setdefault(share.index, ReplyReader())
            if not read_event(reader, choice):
                return None
        if "role" in choice["delta"] and choice["delta"].get("content") is None:
            choice["delta"]["content"] = ""
        return event

    def end(self) -> Iterator[bytes]:
        if self.plan.wants_usage and self._last is not None:
            yield spell_event({**self._last, "choices": [], "usage": self._counted.spell()})
        yield b"data: [DONE]\n\n"


@dataclass(slots=True)
class EventReader:
    """Reads llama.cpp's server-sent events, however they are cut into pieces."""

    is_whole: bool = False
    _rest: bytes = b""

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            # What else there is are blank lines and comments that keep the connection open.
            if line.startswith(_DATA):
                data = line[len(_DATA) :].strip()
                if data == b"[DONE]":
                    self.is_whole = True
                else:
                    yield json.loads(data)


def spell_event(event: Mapping[str, object]) -> bytes:
    return b"data: " + spell(event) + b"\n\n"


def spell(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def spell_error(message: str, *, kind: str, code: str | None, param: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refuse(status: int, body: bytes) -> tuple[int, Json]:
    """Put llama.cpp's refusal into OpenAI's words; its codes are numbers, and a 500 may be ours."""
    try:
        error = json.loads(body)["error"]
        message, kind = str(error["message"]), str(error["type"])
    except (ValueError, KeyError, TypeError):
        message, kind = "The model's process gave no answer that can be read.", "server_error"
    is_too_long = kind == "exceed_context_size_error" or _TOO_LARGE in message
    if is_too_long:
        kind, code = "invalid_request_error", "context_length_exceeded"
        return 400, spell_error(message, kind=kind, code=code)
    if status in {400, 422} or message.startswith(_NOT_READ):
        return 400, spell_error(message, kind="invalid_request_error", code=None)
    return 502, spell_error(message, kind="server_error", code="model-process-failed")


def _new_id(plan: Plan) -> str:
    return f"{_PREFIXES[plan.kind]}-{new_id().hex}"


def _legacy_logprobs(logprobs: Mapping[str, Any] | None, *, start: int) -> Json | None:
    """Spell logprobs as completions have them; llama.cpp spells them as chats do."""
    if logprobs is None:
        return None
    content = logprobs["content"]
    offsets, at = [], start
    for each in content:
        offsets.append(at)
        at += len(each["token"])
    return {
        "tokens": [each["token"] for each in content],
        "token_logprobs": [each["logprob"] for each in content],
        "top_logprobs": [
            {top["token"]: top["logprob"] for top in each["top_logprobs"]} for each in content
        ],
        "text_offset": offsets,
    }
