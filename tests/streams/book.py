"""What callers did and what they were told, by the request id each of them chose."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Call:
    """One call. `deltas` are the pieces of answer that came; `usage` is what the answer told.

    Nobody heard an answer where there is no `status`. `is_whole` is one that came to its end.
    """

    request_id: str
    deployment: str
    is_stream: bool
    body_bytes: int
    has_limit: bool
    hangs_up: bool
    status: int | None = None
    code: str | None = None
    deltas: int = 0
    usage: dict[str, Any] | None = None
    is_whole: bool = False


@dataclass(slots=True)
class Book:
    calls: dict[str, Call] = field(default_factory=dict)

    def open(self, call: Call) -> None:
        self.calls[call.request_id] = call

    def statuses(self) -> Counter[str]:
        return Counter(
            "nobody heard" if call.status is None else f"{call.status} {call.code or ''}".strip()
            for call in self.calls.values()
        )
