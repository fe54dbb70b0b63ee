"""How a receipt is spelt."""

from collections.abc import Mapping
from typing import Any, Self
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from maas.inference.application.receipts import Receipt
from maas.shared.interface.types import Instant, ReadModel
from maas.user.public import Booking, exact

_CHECKPOINT: JsonDict = {
    "v": 1,
    "n": 812,
    "seq_from": 4700,
    "seq_to": 4715,
    "recorded_at": "2026-11-22T09:30:01.904112Z",
    "root": "8d0b6f5c3a4b1d9c57d4f4c6a6f0e4b7a1c2d3e4f5061728394a5b6c7d8e9f01",
    "head": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "previous": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "key_id": "630dcd2966c43366",
    "signature": "3b6a27bc" * 16,
}
_PROOF: JsonDict = {
    "v": 1,
    "event_id": "019ab3c8-6b1c-7d1e-9a4f-2b7c5d8e9f01",
    "seq": 4711,
    "recorded_at": "2026-11-22T09:30:01.904112Z",
    "payload": '{"action":"inference.completed","actor":{"id":"01935d2e-0000-7000-8000-00000000",',
    "leaf": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "row_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "path": ["2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"],
    "checkpoint": _CHECKPOINT,
    "public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
}
_RECEIPT: JsonDict = {
    "request_id": "019ab3c86b1c7d1e9a4f2b7c5d8e9f00",
    "event_id": "019ab3c8-6b1c-7d1e-9a4f-2b7c5d8e9f01",
    "seq": 4711,
    "occurred_at": "2026-11-22T09:30:00.512345Z",
    "recorded_at": "2026-11-22T09:30:01.904112Z",
    "outcome": "success",
    "reason": None,
    "actor_kind": "account",
    "actor_id": "019ab3c8-0000-7000-8000-000000000002",
    "api_key_id": "019ab3c8-0000-7000-8000-000000000003",
    "deployment": {
        "id": "019ab3c8-0000-7000-8000-000000000001",
        "name": "gemma-3-270m",
        "revision": 3,
        "is_foreign": False,
    },
    "kind": "chat",
    "is_stream": True,
    "choices": 1,
    "target": {
        "id": "019ab3c8-0000-7000-8000-000000000004",
        "provider_id": None,
        "provider_name": None,
        "provider_model_id": None,
        "upstream_model": "gemma-3-270m",
        "model_id": "019ab3c8-0000-7000-8000-000000000005",
        "version_id": "019ab3c8-0000-7000-8000-000000000006",
        "version": "1.0.0",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "decision": "only one, priority 0",
    "tries": "019ab3c8-0000-7000-8000-000000000004 200 41ms",
    "status": 200,
    "first_byte_ms": 41,
    "duration_ms": 930,
    "is_cache_hit": False,
    "answer_of": None,
    "price": {
        "id": None,
        "currency": "USD",
        "input": "0.02",
        "cached": None,
        "output": "0.04",
        "reasoning": None,
        "request": None,
    },
    "booking": {
        "booked_at": "2026-11-22T09:30:00.513001Z",
        "requests": 1,
        "input_tokens": 12,
        "cached_tokens": 0,
        "output_tokens": 48,
        "reasoning_tokens": 0,
        "cost_nanos": 2160,
        "currency": "USD",
        "is_estimated": False,
        "is_overrun": False,
    },
    "proof": _PROOF,
}


class ReceiptDeploymentRead(ReadModel):
    """The deployment as it was; a foreign one is another tenant's."""

    id: UUID
    name: str
    revision: int
    is_foreign: bool


class ReceiptTargetRead(ReadModel):
    """Who answered: a supplier's model, or a version of the registry by its files' digest.

    Whose supplier a foreign deployment uses is not told.
    """

    id: UUID
    provider_id: UUID | None
    provider_name: str | None
    provider_model_id: UUID | None
    upstream_model: str | None
    model_id: UUID | None
    version_id: UUID | None
    version: str | None
    digest: str | None


class ReceiptPriceRead(ReadModel):
    """Decimals for a million tokens; `request` is for the call itself."""

    id: UUID | None
    currency: str
    input: str
    cached: str | None
    output: str
    reasoning: str | None
    request: str | None


class ReceiptBookingRead(ReadModel):
    """The ledger's row; `cost_nanos` is text where JSON would round it."""

    booked_at: Instant
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanos: int | str
    currency: str | None
    is_estimated: bool = Field(description="Nobody counted: it is what was seen, or held.")
    is_overrun: bool = Field(description="More was used than could be held for it.")

    @classmethod
    def of(cls, booking: Booking) -> Self:
        return cls(
            booked_at=booking.settled_at,
            requests=booking.requests,
            input_tokens=booking.input_tokens,
            cached_tokens=booking.cached_tokens,
            output_tokens=booking.output_tokens,
            reasoning_tokens=booking.reasoning_tokens,
            cost_nanos=exact(booking.cost_nanos),
            currency=booking.currency,
            is_estimated=booking.is_estimated,
            is_overrun=booking.is_overrun,
        )


class ReceiptCheckpointRead(ReadModel):
    """As under `/api/v1/audit/checkpoints`."""

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


class ReceiptProofRead(ReadModel):
    """What `maas audit verify --proof` takes; `payload` is the text that was hashed, exactly."""

    v: int
    event_id: UUID
    seq: int
    recorded_at: Instant
    payload: str
    leaf: str
    row_hash: str
    path: list[str]
    checkpoint: ReceiptCheckpointRead
    public_key: str


class ReceiptRead(ReadModel):
    """A call as the trail tells of it; tokens and money are the ledger's."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_RECEIPT]})

    request_id: str
    event_id: UUID
    seq: int
    occurred_at: Instant
    recorded_at: Instant
    outcome: str
    reason: str | None
    actor_kind: str
    actor_id: UUID | None
    api_key_id: UUID | None
    deployment: ReceiptDeploymentRead
    kind: str
    is_stream: bool
    choices: int
    target: ReceiptTargetRead | None = Field(
        description="Null of a kept answer, and of a lost one."
    )
    decision: str | None = Field(description="Why it was this target.")
    tries: str | None = Field(description="Each target that was asked, and what came of it.")
    status: int | None
    first_byte_ms: int | None
    duration_ms: int | None
    is_cache_hit: bool
    answer_of: str | None = Field(description="The request whose answer was given again.")
    price: ReceiptPriceRead | None
    booking: ReceiptBookingRead | None
    proof: ReceiptProofRead | None = Field(description="Null where the trail beside it is damaged.")

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        event, after = receipt.event, receipt.event.after
        fields: dict[str, Any] = {
            "request_id": event.request_id,
            "event_id": event.id,
            "seq": event.seq,
            "occurred_at": event.occurred_at,
            "recorded_at": event.recorded_at,
            "outcome": event.outcome,
            "reason": event.reason,
            "actor_kind": event.actor_kind,
            "actor_id": event.actor_id,
            "api_key_id": event.api_key_id,
            "deployment": {
                "id": event.resource_id,
                **_pick(after, "name", "revision", "is_foreign"),
            },
            **_pick(after, "kind", "is_stream", "choices", "decision", "tries", "status"),
            **_pick(after, "first_byte_ms", "duration_ms", "is_cache_hit", "answer_of"),
            "target": _target_of(after),
            "price": _price_of(after),
            "booking": None if receipt.booking is None else ReceiptBookingRead.of(receipt.booking),
            "proof": receipt.proof,
        }
        return cls.model_validate(fields)


def _pick(after: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: after.get(name) for name in names}


def _target_of(after: Mapping[str, object]) -> dict[str, object] | None:
    if after.get("target_id") is None:
        return None
    names = [name for name in ReceiptTargetRead.model_fields if name != "id"]
    return {"id": after["target_id"], **_pick(after, *names)}


def _price_of(after: Mapping[str, object]) -> dict[str, object] | None:
    if after.get("input_price") is None:
        return None
    kinds = ("input", "cached", "output", "reasoning", "request")
    return {
        "id": after.get("price_id"),
        "currency": after.get("currency"),
        **{kind: after.get(f"{kind}_price") for kind in kinds},
    }
