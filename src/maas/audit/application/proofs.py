"""What can be asked of the trail's evidence: checkpoints, the head, and proofs of single events."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from maas.audit.application.queries import AuditEventNotFoundError
from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.audit.domain.proof import Proof
from maas.shared.domain.errors import NotFoundError
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest

NOT_FLUSHED = (
    "No such event is in the log. One that was just recorded is there within seconds: try again."
)


class NoCheckpointError(NotFoundError):
    code = "audit-no-checkpoint"
    title = "Nothing has been signed yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDetails:
    """A signed checkpoint with its own hash and the key to check it with."""

    signed: SignedCheckpoint
    hash: bytes
    public_key: bytes


class EvidenceQueries(Protocol):
    async def get_head(self) -> CheckpointDetails:
        """Show the newest checkpoint.

        Raises:
            NoCheckpointError: there is none yet.
        """
        ...

    async def list_checkpoints(
        self, *, from_seq: int | None, to_seq: int | None, page: PageRequest
    ) -> Page[CheckpointDetails]:
        """List the checkpoints that cover any row of a stretch, newest first."""
        ...

    async def prove(self, event_id: UUID, *, tenant_id: TenantId) -> Proof:
        """Prove that an event of the tenant is in the log.

        Raises:
            AuditEventNotFoundError: it is not, or not yet.
        """
        ...


def not_in_the_log() -> AuditEventNotFoundError:
    return AuditEventNotFoundError(NOT_FLUSHED)
