from dataclasses import replace
from datetime import UTC, datetime

import pytest

from maas.audit.domain.checkpoint import (
    GENESIS,
    Checkpoint,
    MalformedCheckpointError,
    SignedCheckpoint,
    key_id_of,
    read_signed_checkpoint,
)

CHECKPOINT = Checkpoint(
    n=1,
    seq_from=1,
    seq_to=3,
    recorded_at=datetime(2026, 11, 21, 8, 0, 0, 123456, tzinfo=UTC),
    root=bytes([1]) * 32,
    head=bytes([2]) * 32,
    previous=GENESIS,
    key_id="630dcd2966c43366",
)
SIGNED = SignedCheckpoint(checkpoint=CHECKPOINT, signature=bytes([3]) * 64)


def test_the_signed_bytes_are_frozen() -> None:
    assert CHECKPOINT.to_bytes() == (
        b'{"head":"' + b"02" * 32 + b'","key_id":"630dcd2966c43366","n":1,"previous":"'
        b"" + b"00" * 32 + b'","recorded_at":"2026-11-21T08:00:00.123456Z","root":"'
        b"" + b"01" * 32 + b'","seq_from":1,"seq_to":3,"v":1}'
    )


def test_a_key_is_named_by_its_digest() -> None:
    assert key_id_of(b"") == "e3b0c44298fc1c14"


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2},
        {"seq_from": 2},
        {"seq_to": 4},
        {"recorded_at": datetime(2026, 11, 21, 8, 0, 0, 123457, tzinfo=UTC)},
        {"root": GENESIS},
        {"head": GENESIS},
        {"previous": bytes([1]) * 32},
        {"key_id": "0" * 16},
    ],
    ids=str,
)
def test_every_field_is_in_the_digest(change: dict[str, object]) -> None:
    changed = replace(CHECKPOINT, **change)  # type: ignore[arg-type]  # of each field's own kind

    assert changed.digest() != CHECKPOINT.digest()


def test_is_read_back_as_it_was_spelled() -> None:
    assert read_signed_checkpoint({**SIGNED.to_mapping(), "type": "checkpoint"}) == SIGNED


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"n": "1"},
        {"n": True},
        {"n": 0},
        {"seq_to": 2**63},
        {"recorded_at": "yesterday"},
        {"recorded_at": "2026-11-21T08:00:00"},
        {"root": "00"},
        {"root": None},
        {"head": "x" * 64},
        {"key_id": "ABC"},
        {"signature": "00" * 32},
    ],
    ids=str,
)
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MalformedCheckpointError):
        read_signed_checkpoint({**SIGNED.to_mapping(), **change})
