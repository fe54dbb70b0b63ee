"""What a wire format makes of a request: a status and a body, or the events of a stream."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.upstream.scripts import Script

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream; charset=utf-8"
UNKNOWN: Final[Mapping[str, Any]] = {"x_new": {"made_up": [1, None, "two"]}}
"""A field that no client knows yet."""


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of a stream, and how many tokens had to be generated for it."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was used, and what is told of it: `told` is null where nothing is."""

    prompt: int
    completion: int
    told_prompt: Any
    told_completion: Any

    @classmethod
    def of(cls, prompt: int, completion: int, script: Script) -> "Spent":
        told: dict[str, tuple[Any, Any]] = {
            "honest": (prompt, completion),
            "more": (prompt + 1_000, completion * 2 + 1_000),
            "less": (prompt // 2, completion // 2),
            "none": (None, None),
            "nonsense": (-prompt, "many"),
        }
        told_prompt, told_completion = told[script.usage]
        return cls(
            prompt=prompt,
            completion=completion,
            told_prompt=told_prompt,
            told_completion=told_completion,
        )

    @property
    def told_total(self) -> Any:
        if isinstance(self.told_prompt, int) and isinstance(self.told_completion, int):
            return self.told_prompt + self.told_completion
        return -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`events` stand in place of `body` where it is streamed."""

    status: int = 200
    body: bytes = b""
    events: Sequence[Event] | None = None
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    spent: Spent | None = None


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def answer(
    value: object,
    *,
    status: int = 200,
    spent: Spent | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    return Reply(status=status, body=dump(value), spent=spent, headers=headers or {})


class RefusedError(Exception):
    """The request is wrong; the wire format finds the words."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
