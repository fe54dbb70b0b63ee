"""What callers were told, line by line, in files that outlive them.

A line is written before something is asked and after it is answered. It is in the kernel's hands at
once, which a SIGKILL of the process that wrote it does not change.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from maas.user.public import Hold, UsageFigures


class Pen:
    """Writes one process's file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def note(self, word: str, request_id: str, **more: object) -> None:
        line = {"w": word, "r": request_id, "at": time.time(), **more}
        self._file.write(json.dumps(line) + "\n")


@dataclass(frozen=True, slots=True)
class Booked:
    """Tokens and cost of a call, as they are held or in the ledger."""

    tokens: int
    cost_nanos: int

    @classmethod
    def held(cls, hold: Hold) -> Self:
        return cls(hold.granted.tokens, hold.granted.cost_nanos)

    @classmethod
    def used(cls, used: UsageFigures) -> Self:
        return cls(used.tokens, used.cost_nanos)


@dataclass(slots=True)
class Call:
    """All that is known of a call; what is None was not written before its process ended."""

    request_id: str
    wanted: Booked
    least: Booked
    payer: str
    answer: str | None = None
    """Granted, refused or unavailable; or left, if the caller stopped waiting."""

    hold_id: str | None = None
    granted: Booked | None = None
    lease_until: float = 0.0
    progress: Booked | None = None
    is_progress_told: bool = False

    ended_by: str | None = None
    """Settle or release, as it was sent."""

    used: Booked | None = None
    told_at: float | None = None
    """When the caller was told that it is settled, or released."""


def read_book(paths: Iterable[Path]) -> dict[str, Call]:
    """Read all files into calls, by request id."""
    calls: dict[str, Call] = {}
    for path in paths:
        for line in _lines(path):
            _take(calls, line)
    return calls


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            # The last line of a process that was killed while it wrote may be half a line.
            if line.endswith("\n"):
                yield json.loads(line)


def _take(calls: dict[str, Call], line: dict[str, Any]) -> None:
    word, request_id = line["w"], line["r"]
    if word == "ask":
        wanted, least = Booked(*line["wanted"]), Booked(*line["least"])
        calls[request_id] = Call(request_id, wanted, least, line["payer"])
        return
    call = calls[request_id]
    match word:
        case "granted" | "refused" | "unavailable" | "left":
            call.answer = word
            if word == "granted":
                call.hold_id, call.lease_until = line["hold"], line["lease_until"]
                call.granted = Booked(*line["amounts"])
        case "progress":
            call.progress = Booked(*line["amounts"])
        case "progressed":
            call.is_progress_told = True
        case "settle" | "release":
            call.ended_by = word
            call.used = Booked(*line["amounts"]) if word == "settle" else None
        case "told":
            call.told_at = line["at"]
        case _:
            raise AssertionError(word)
