import json
from typing import Any
from uuid import UUID

import pytest

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.record import MalformedEventError, read_record
from tests.unit.audit.test_event import make_event, make_personal

WHO = make_personal(email="a@example.com")
PERSONAL = WHO.to_json().encode()
WRITTEN = make_event(personal=WHO).payload()


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(WRITTEN), **fields}).encode()


def test_reads_back_what_was_written() -> None:
    event = make_event(after={"name": "名"}, personal=WHO)

    record = read_record(payload=event.payload(), personal=PERSONAL, duration_ms=3)

    assert record.event_id == UUID(int=7)
    assert record.occurred_at == event.occurred_at
    assert record.payload == event.payload()
    assert record.leaf == leaf_of(event.payload())
    assert record.retention_class == "security"
    assert (record.email, record.address, record.salt) == (
        "a@example.com",
        None,
        bytes(range(32)),
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b"1" * 10_000,
        b"x" * (1024 * 1024 + 1),
        changed(v=2),
        changed(v=None),
        changed(id="no uuid"),
        changed(id=7),
        changed(occurred_at="2026-11-21T08:00:00"),
        changed(occurred_at="yesterday"),
        changed(actor=None),
        changed(action=7),
        changed(outcome="splendid"),
        changed(outcome=[]),
        changed(surplus=1),
        changed(changes={"before": {}}),
        changed(changes={"before": {}, "after": {"a": 1.5}}),
        changed(changes={"before": {}, "after": {"a": [[]]}}),
        changed(commitments={}),
        changed(id="{00000000-0000-0000-0000-000000000007}"),
        changed(occurred_at="1969-12-31T23:59:59Z"),
        WRITTEN.replace(b'"outcome"', b'"outcomes"'),
    ],
    ids=lambda payload: f"{payload[:20]!r}",
)
def test_refuses_what_is_no_event(payload: bytes) -> None:
    with pytest.raises(MalformedEventError):
        read_record(payload=payload, personal=PERSONAL, duration_ms=None)


@pytest.mark.parametrize("personal", [b"{}", b"[]", b"", b'{"salt":"xyz"}', b'{"salt":7}'])
def test_refuses_personal_fields_without_a_salt(personal: bytes) -> None:
    with pytest.raises(MalformedEventError):
        read_record(payload=make_event().payload(), personal=personal, duration_ms=None)
