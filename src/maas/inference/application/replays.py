"""A call under an Idempotency-Key is paid for once, and answered once: answers are not kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from typing_extensions import override

from maas.shared.domain.errors import ConflictError, UnavailableError
from maas.shared.domain.ids import TenantId, new_id


class AlreadyProcessedError(ConflictError):
    """It may still be under way; either way it is charged once."""

    code = "already-processed"
    title = "A call with this Idempotency-Key was made before"

    def __init__(self, first_request_id: str) -> None:
        super().__init__(
            f"Its answer is not kept; the request {first_request_id} has its receipt. Make a new "
            "key to have it answered again, which costs as much again."
        )
        self.first_request_id = first_request_id

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        return {"first_request_id": self.first_request_id}


class ReplaysUnavailableError(UnavailableError):
    code = "replays-unavailable"
    title = "Idempotency-Keys cannot be checked at the moment"

    def __init__(self) -> None:
        super().__init__("The database of keys did not answer in time; try again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayKey:
    """What a caller names a call by, whose credential it is, and the digest of what it asks.

    `attempt` tells calls apart that are sent again under the same request id.
    """

    tenant_id: TenantId
    credential_id: UUID
    key: str
    body_digest: bytes
    attempt: UUID = field(default_factory=new_id)


class Replays(Protocol):
    async def claim(self, key: ReplayKey, *, request_id: str) -> None:
        """Take the key for this request, for a day.

        Raises:
            AlreadyProcessedError: another request of the same body has it.
            IdempotencyKeyReusedError: one of another body.
            ReplaysUnavailableError: nobody could tell; if it was taken all the same, it is given
                back.
        """
        ...

    async def free(self, key: ReplayKey, *, request_id: str) -> None:
        """Give back what this request took: it cost nothing, and may be repeated.

        What cannot be given back now is tried further, for a minute.
        """
        ...
