"""The upstream's own books: each call as it was answered, to be held against somebody else's."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

KeyStyle = Literal["none", "bearer", "x-api-key", "api-key"]


@dataclass(slots=True, kw_only=True)
class Call:
    """What came and what was sent. Keys are kept as a digest, and bodies not at all.

    `completion_tokens` are those generated until the call ended, `told_*` what the answer claimed.
    `user` is what the request says of its sender: a test may tell by it what came of which call.
    """

    id: str
    method: str
    path: str
    under: str | None
    model: str | None = None
    client_request_id: str | None = None
    traceparent: str | None = None
    user: Any = None
    key_style: KeyStyle = "none"
    key_digest: str | None = None
    status: int = 0
    is_streamed: bool = False
    is_complete: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    told_prompt_tokens: int | None = None
    told_completion_tokens: int | None = None
    chunks_sent: int = 0


@dataclass(slots=True)
class Ledger:
    connections: int = 0
    calls: list[Call] = field(default_factory=list)

    def clear(self) -> None:
        self.connections = 0
        self.calls.clear()

    def told(self, *, after: int = 0) -> dict[str, Any]:
        """Show all of it, the calls from one on."""
        done = [call for call in self.calls if call.is_complete]
        return {
            "connections": self.connections,
            "totals": {
                "calls": len(self.calls),
                "complete": len(done),
                "prompt_tokens": sum(call.prompt_tokens for call in self.calls),
                "completion_tokens": sum(call.completion_tokens for call in self.calls),
                "by_status": dict(Counter(str(call.status) for call in self.calls)),
            },
            "calls": [asdict(call) for call in self.calls[after:]],
        }


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]
