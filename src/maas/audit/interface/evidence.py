"""What was signed, and proofs of single events."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import ConfigDict
from pydantic.config import JsonDict

from maas.audit.application.proofs import (
    CheckpointDetails,
    DamagedTrailError,
    NoCheckpointError,
)
from maas.audit.application.queries import AuditEventNotFoundError
from maas.audit.interface.dependencies import Evidence
from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import MAX_INT, Instant, ReadModel

router = APIRouter(prefix="/audit", tags=["audit"], route_class=StrictRoute)

_SIGNED: JsonDict = {
    "v": 1,
    "n": 812,
    "seq_from": 4700,
    "seq_to": 4715,
    "recorded_at": "2026-11-21T08:00:00.904112Z",
    "root": "8d0b6f5c3a4b1d9c57d4f4c6a6f0e4b7a1c2d3e4f5061728394a5b6c7d8e9f01",
    "head": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "previous": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "key_id": "630dcd2966c43366",
    "signature": "3b6a27bc" * 16,
}
_CHECKPOINT: JsonDict = {
    **_SIGNED,
    "hash": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
    "public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
}
_PROOF: JsonDict = {
    "v": 1,
    "event_id": "01935d2e-7a1c-7c3e-9d39-3b1a2f4c5d6e",
    "seq": 4711,
    "recorded_at": "2026-11-21T08:00:00.904112Z",
    "payload": '{"action":"role.assigned","actor":{"id":"01935d2e-0000-7000-8000-000000000002",',
    "leaf": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "row_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "path": ["2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"],
    "checkpoint": _SIGNED,
    "public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
}


class SignedCheckpointRead(ReadModel):
    """Hashes, keys and signatures are hexadecimal; `key_id` begins the SHA-256 of the key."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_SIGNED]})

    v: int
    n: int
    seq_from: int
    seq_to: int
    recorded_at: Instant
    root: str
    head: str
    previous: str
    key_id: str
    signature: str


class CheckpointRead(SignedCheckpointRead):
    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_CHECKPOINT]})

    hash: str
    public_key: str

    @classmethod
    def of(cls, details: CheckpointDetails) -> "CheckpointRead":
        fields: dict[str, Any] = {
            **details.signed.to_mapping(),
            "hash": details.hash.hex(),
            "public_key": details.public_key.hex(),
        }
        return cls.model_validate(fields)


class ProofRead(ReadModel):
    """What `maas audit verify --proof` takes; `payload` is the text that was hashed, exactly."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_PROOF]})

    v: int
    event_id: UUID
    seq: int
    recorded_at: Instant
    payload: str
    leaf: str
    row_hash: str
    path: list[str]
    checkpoint: SignedCheckpointRead
    public_key: str


_Seq = Annotated[int, Query(ge=1, le=MAX_INT)]


@router.get(
    "/logs/{id}/proof",
    dependencies=[requires("audit:read")],
    summary="Prove that an event was recorded",
    description=(
        "Everything it takes to check the event without this server: its hashed text, the path to "
        "the root of its checkpoint, the signature and the key. Keep the key you got in another "
        "way, and check with `maas audit verify --proof FILE --public-key FILE`."
    ),
)
@audited("audit.proved")
@may_refuse(AuditEventNotFoundError, DamagedTrailError)
async def get_proof(id: UUID, evidence: Evidence, caller: Caller) -> ProofRead:  # noqa: A002  the path's name
    proof = await evidence.prove(id, tenant_id=caller.tenant_id)
    return ProofRead.model_validate(proof.to_mapping())


@router.get(
    "/head",
    dependencies=[requires("audit:verify")],
    summary="Read the newest signed checkpoint",
    description="Keep it: a log whose end was cut off later is found by comparing.",
)
@audited("audit.read")
@may_refuse(NoCheckpointError)
async def get_head(evidence: Evidence) -> CheckpointRead:
    return CheckpointRead.of(await evidence.get_head())


@router.get(
    "/checkpoints",
    dependencies=[requires("audit:verify")],
    summary="List the signed checkpoints, newest first",
    description="Those that cover any row between `from_seq` and `to_seq`, both included.",
)
@audited("audit.read")
async def list_checkpoints(
    evidence: Evidence, paging: Paging, from_seq: _Seq | None = None, to_seq: _Seq | None = None
) -> PageRead[CheckpointRead]:
    page = await evidence.list_checkpoints(from_seq=from_seq, to_seq=to_seq, page=paging)
    return PageRead[CheckpointRead].of(page, CheckpointRead.of)
