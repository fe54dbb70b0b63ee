"""What an Idempotency-Key claims, and the answer it brings back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from maas.shared.domain.errors import ConflictError, InvalidInputError
from maas.shared.domain.ids import TenantId


class IdempotencyInProgressError(ConflictError):
    code = "idempotency-in-progress"
    title = "The first request with this Idempotency-Key is still running"


class IdempotencyKeyReusedError(InvalidInputError):
    code = "idempotency-key-reused"
    title = "This Idempotency-Key was used for another request"


class KeptAnswerUnreadableError(ConflictError):
    code = "idempotency-answer-unreadable"
    title = "The kept answer can no longer be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A rendered answer that can be given again."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class IdempotencyClaim:
    """A key that a call carries for its first successful commit.

    `request_hash` is the SHA-256 of method, target and body. The store fills in the fields below
    `render`: whose key it is when a transaction begins, and that it is kept once one has committed.
    `principal_id` is the credential's: an API key is not told what another one was answered.
    """

    key: str
    route: str
    request_hash: bytes
    render: Callable[[object], Answer]
    tenant_id: TenantId | None = field(default=None, init=False)
    principal_id: UUID | None = field(default=None, init=False)
    replaces_expired: bool = field(default=False, init=False)
    is_kept: bool = field(default=False, init=False)


class ReplayedAnswer(Exception):  # noqa: N818  not an error: the first answer, given again
    """Stops a repeated call; the edge sends `answer` instead of what the route would have said.

    It is no `MaasError`, so an audit scope it passes through records nothing.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__("answered as before")
