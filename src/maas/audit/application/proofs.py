"""What can be asked of the trail's evidence: checkpoints, the head, and proofs of single events."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from maas.audit.application.queries import AuditEventNotFoundError
from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.audit.domain.proof import Proof
from maas.shared.domain.errors import ConflictError, NotFoundError
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest

NOT_FLUSHED = (
    "No such event is in the log. One that was just recorded is there within seconds: try again."
)


class NoCheckpointError(NotFoundError):
    code = "audit-no-checkpoint"
    title = "Nothing has been signed yet"


class DamagedTrailError(ConflictError):
    """Rows of the chain are missing, so that nothing beside them can be proved."""

    code = "audit-trail-damaged"
    title = "The audit trail is damaged here: have an operator run `maas audit verify`"


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
            AuditEventNotFoundError: it is not, not yet, or not any more.
            DamagedTrailError: rows of the chain are missing beside it.
        """
        ...


def not_in_the_log() -> AuditEventNotFoundError:
    return AuditEventNotFoundError(NOT_FLUSHED)
