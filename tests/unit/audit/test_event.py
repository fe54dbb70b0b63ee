"""Format v1 is frozen: when one of these vectors changes, every stored hash stops verifying."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas.audit.domain.event import (
    AuditEvent,
    NotCanonicalError,
    PersonalFields,
    bounded,
    canonical_address,
    clean,
)
from maas.shared.domain.ids import DEFAULT_TENANT_ID, EventId, SessionId

FULL = (
    '{"action":"role.assigned","actor":{"id":"01935d2e-0000-7000-8000-000000000002","kind":"account"}'
    ',"api_key_id":null,"changes":{"after":{"active":true,"limit":9007199254740993,'
    '"note":"a\ufffd\\n\ufffd\\"é","roles":["developer","审计"],"text":{"length":2001,'
    '"sha256":"9f2c9dcddb048a0b2baf27b3fec5efb480c7d9500ff0c6510b78f0033683c5c5"}},'
    '"before":{"note":null,"roles":["user"]}},"commitments":{'
    '"actor_name":"0c045729a3dc7196dfaaf22f1e382dcee956147d7a851c19ba92b4218024736d",'
    '"address":"e8824a84ab5f666b08a55201d0c6424561ca08ce58a6e5c7f5f975f5ec64b47b",'
    '"email":"dd833f75013db2592128f6472edfaa8fee540e8e16863446397fc49042a8b512",'
    '"user_agent":"e29c55dd53399a2dceeb8732670501c0d03d4765d9934edb0727b93eb7c3e4c9"},'
    '"id":"01935d2e-7a1c-7c3e-9d39-3b1a2f4c5d6e","occurred_at":"2026-11-21T08:00:00.123456Z",'
    '"outcome":"success","reason":null,"request_id":"01935d2e7a1b",'
    '"resource":{"id":"01935d2e-0000-7000-8000-000000000003","kind":"account"},'
    '"session_id":"01935d2e-0000-7000-8000-000000000004",'
    '"tenant_id":"01900000-0000-7000-8000-000000000001","v":1}'
)
EMPTY = (
    '{"action":"auth.login","actor":{"id":null,"kind":"anonymous"},"api_key_id":null,'
    '"changes":{"after":{},"before":{}},"commitments":{},'
    '"id":"00000000-0000-0000-0000-000000000007","occurred_at":"1970-01-01T00:00:00.000000Z",'
    '"outcome":"denied","reason":null,"request_id":"","resource":{"id":null,"kind":null},'
    '"session_id":null,"tenant_id":"01900000-0000-7000-8000-000000000001","v":1}'
)


def make_personal(**fields: Any) -> PersonalFields:
    return PersonalFields(**{"salt": bytes(range(32)), **fields})


def make_event(**fields: Any) -> AuditEvent:
    values: dict[str, Any] = {
        "id": EventId(UUID(int=7)),
        "occurred_at": datetime(1970, 1, 1, tzinfo=UTC),
        "tenant_id": DEFAULT_TENANT_ID,
        "actor_kind": "anonymous",
        "actor_id": None,
        "action": "auth.login",
        "outcome": "denied",
        "request_id": "",
        "before": {},
        "after": {},
        "personal": make_personal(),
    }
    return AuditEvent(**{**values, **fields})


class TestPayload:
    def test_of_a_full_event_is_byte_for_byte_the_frozen_one(self) -> None:
        event = make_event(
            id=EventId(UUID("01935d2e-7a1c-7c3e-9d39-3b1a2f4c5d6e")),
            occurred_at=datetime(2026, 11, 21, 8, 0, 0, 123456, tzinfo=UTC),
            actor_kind="account",
            actor_id=UUID("01935d2e-0000-7000-8000-000000000002"),
            action="role.assigned",
            outcome="success",
            request_id="01935d2e7a1b",
            session_id=SessionId(UUID("01935d2e-0000-7000-8000-000000000004")),
            resource_kind="account",
            resource_id="01935d2e-0000-7000-8000-000000000003",
            before={"roles": ["user"], "note": None},
            after={
                "roles": ["developer", "审计"],
                "note": 'a\x00\n\ud800"é',
                "limit": 2**53 + 1,
                "active": True,
                "text": "x" * 2001,
            },
            personal=make_personal(
                actor_name="陈美",
                email="mei@example.com",
                address="::ffff:192.0.2.7",
                user_agent='curl/8.9 "x"',
            ),
        )

        assert event.payload() == FULL.encode()

    def test_of_an_empty_event_still_has_every_field(self) -> None:
        assert make_event().payload() == EMPTY.encode()

    def test_is_in_utc_whatever_zone_the_clock_was_in(self) -> None:
        east = timezone(timedelta(hours=8))

        event = make_event(occurred_at=datetime(1970, 1, 1, 8, tzinfo=east))

        assert event.payload() == EMPTY.encode()

    @settings(deadline=None)
    @given(text=st.text(st.characters(), max_size=50), name=st.text(st.characters(), max_size=10))
    def test_can_be_stored_whatever_text_it_was_made_of(self, text: str, name: str) -> None:
        event = make_event(
            action=text,
            request_id=text,
            reason=text,
            resource_kind=text,
            resource_id=text,
            after={name: text, "list": [text]},
            personal=make_personal(actor_name=text, email=text, user_agent=text, address=text),
        )

        stored = json.loads(event.payload().decode())

        assert "\x00" not in stored["action"] + stored["reason"] + stored["resource"]["id"]
        assert all("\x00" not in key for key in stored["changes"]["after"])
        assert all("\x00" not in value for value in event.personal.to_mapping().values())

    def test_refuses_values_whose_text_is_not_canonical(self) -> None:
        event = make_event(after={"price": 0.1})

        with pytest.raises(NotCanonicalError):
            event.payload()


class TestCommitments:
    def test_are_keyed_hashes_of_name_and_value(self) -> None:
        personal = make_personal(actor_name="陈美", address="::ffff:192.0.2.7")

        expected = {
            name: hmac.new(bytes(range(32)), name.encode() + b"\0" + value, "sha256").hexdigest()
            for name, value in (("actor_name", "陈美".encode()), ("address", b"192.0.2.7"))
        }
        assert personal.commitments() == expected

    def test_differ_between_events_of_one_person(self) -> None:
        one = PersonalFields(salt=bytes(32), email="a@example.com")
        other = PersonalFields(salt=bytes(31) + b"\x01", email="a@example.com")

        assert one.commitments() != other.commitments()

    def test_need_a_whole_salt(self) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            PersonalFields(salt=b"short")


class TestBounded:
    @pytest.mark.parametrize("value", [None, True, False, 0, 2**80, "", "x" * 2000, ["a", "b"]])
    def test_keeps_small_values(self, value: object) -> None:
        assert bounded(value) == value

    def test_gives_a_long_text_by_length_and_hash(self) -> None:
        text = "字" * 2001

        assert bounded(text) == {
            "length": 2001,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }

    def test_gives_a_long_list_by_count_and_hash_of_its_json(self) -> None:
        items = ["x" * 100] * 30

        spelled = json.dumps(items, separators=(",", ":")).encode()
        assert bounded(items) == {"items": 30, "sha256": hashlib.sha256(spelled).hexdigest()}

    @pytest.mark.parametrize("value", [1.5, b"bytes", {"a": 1}, [1], object()])
    def test_refuses_anything_else(self, value: object) -> None:
        with pytest.raises(NotCanonicalError):
            bounded(value)


class TestClean:
    def test_joins_surrogate_pairs_and_replaces_lone_ones(self) -> None:
        assert clean("\ud83d\ude00 \ud800") == "😀 \ufffd"

    def test_cuts(self) -> None:
        assert clean("abc", 2) == "ab"


class TestCanonicalAddress:
    @pytest.mark.parametrize(
        ("given_address", "spelled"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("testclient", None),
            (None, None),
        ],
    )
    def test_spells_each_in_one_way(self, given_address: str | None, spelled: str | None) -> None:
        assert canonical_address(given_address) == spelled
