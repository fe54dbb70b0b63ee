"""A proof that one event was recorded, which whoever has the public key can check alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.chain_check import SignatureCheck
from maas.audit.domain.checkpoint import (
    MalformedCheckpointError,
    SignedCheckpoint,
    read_hex,
    read_signed_checkpoint,
)
from maas.audit.domain.event import Json, spell_instant
from maas.audit.domain.merkle import HASH_BYTES, is_included

VERSION = 1


class MalformedProofError(ValueError):
    """This is no proof of a version this code reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """`path` leads from the leaf to the root of the checkpoint, bottom first."""

    event_id: str
    seq: int
    recorded_at: datetime
    payload: bytes
    leaf: bytes
    row_hash: bytes
    path: Sequence[bytes]
    checkpoint: SignedCheckpoint
    public_key: bytes

    def to_mapping(self) -> dict[str, Json]:
        return {
            "v": VERSION,
            "event_id": self.event_id,
            "seq": self.seq,
            "recorded_at": spell_instant(self.recorded_at),
            "payload": self.payload.decode(errors="replace"),
            "leaf": self.leaf.hex(),
            "row_hash": self.row_hash.hex(),
            "path": [sibling.hex() for sibling in self.path],
            "checkpoint": self.checkpoint.to_mapping(),
            "public_key": self.public_key.hex(),
        }


def find_fault(
    fields: Mapping[str, Any], *, keys: Mapping[str, bytes], is_signed: SignatureCheck
) -> str | None:
    """Say why a proof, as `to_mapping` spells it, does not prove its event under these keys.

    Raises:
        MalformedProofError: it is no proof.
    """
    try:
        return _find_fault(fields, keys=keys, is_signed=is_signed)
    except MalformedCheckpointError as exc:
        raise MalformedProofError(str(exc)) from exc
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise MalformedProofError("a field is missing, or of another kind") from exc


def _find_fault(
    fields: Mapping[str, Any], *, keys: Mapping[str, bytes], is_signed: SignatureCheck
) -> str | None:
    if fields["v"] != VERSION:
        raise MalformedProofError("it has a version this code does not read")
    payload, seq, path = fields["payload"].encode(), fields["seq"], fields["path"]
    leaf = read_hex(fields, "leaf", HASH_BYTES)
    signed = read_signed_checkpoint(fields["checkpoint"])
    checkpoint = signed.checkpoint
    key = keys.get(checkpoint.key_id)
    siblings = [read_hex({"path": sibling}, "path", HASH_BYTES) for sibling in path]
    is_under_root = is_included(
        leaf,
        index=seq - checkpoint.seq_from,
        size=checkpoint.size,
        path=siblings,
        root=checkpoint.root,
    )
    faults = (
        (leaf_of(payload) != leaf, "its leaf is not the hash of its payload"),
        (json.loads(payload)["id"] != fields["event_id"], "its payload is another event's"),
        (not is_under_root, "its path does not lead to the root of the checkpoint"),
        (
            datetime.fromisoformat(fields["recorded_at"]) > checkpoint.recorded_at,
            "it was recorded after its checkpoint",
        ),
        (key is None, f"signed with the key {checkpoint.key_id}, which is not trusted"),
        (
            key is not None and not is_signed(key, signed.signature, checkpoint.to_bytes()),
            "the checkpoint's signature is not that of its key",
        ),
    )
    return next((what for is_wrong, what in faults if is_wrong), None)
