"""How quotas are told: what remains, and which version of all of somebody's it is."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError

from maas.shared.domain.ids import AccountId, ApiKeyId, ServiceAccountId, TenantId, new_id
from maas.user.application.quota_ports import QuotaDetails, QuotaSheet, QuotaSubject, version_of
from maas.user.domain.api_key import Holder
from maas.user.interface.quota_schemas import QuotaSheetRead, QuotasUpdate, wishes_of

RESET = datetime(2026, 12, 1, tzinfo=UTC)
ONE, TWO = UUID(int=1), UUID(int=2)


def details(*, limit: int, used: int, held: int, is_closed: bool = False) -> QuotaDetails:
    return QuotaDetails(
        id=ONE,
        version=1,
        scope="user",
        meter="cost",
        period="month",
        currency="EUR",
        limit=limit,
        used=used,
        held=held,
        is_closed=is_closed,
        resets_at=RESET,
    )


class TestRemaining:
    @pytest.mark.parametrize(
        ("limit", "used", "held", "remaining"),
        [(10, 3, 4, 3), (10, 10, 0, 0), (10, 6, 5, 0), (0, 0, 0, 0), (5, 9, 0, 0)],
    )
    def test_it_is_what_is_neither_used_nor_held(
        self, limit: int, used: int, held: int, remaining: int
    ) -> None:
        assert details(limit=limit, used=used, held=held).remaining == remaining

    def test_a_closed_one_has_none(self) -> None:
        assert details(limit=10, used=1, held=0, is_closed=True).remaining == 0


class TestVersion:
    def test_it_is_another_if_one_was_made_changed_or_went(self) -> None:
        versions = {
            version_of(quotas)
            for quotas in ([], [(ONE, 1)], [(ONE, 2)], [(TWO, 1)], [(ONE, 1), (TWO, 1)])
        }

        assert len(versions) == 5

    def test_neither_order_nor_use_matters(self) -> None:
        assert version_of([(ONE, 1), (TWO, 2)]) == version_of([(TWO, 2), (ONE, 1)])
        one, other = details(limit=9, used=0, held=0), details(limit=9, used=3, held=1)
        assert QuotaSheet([one]).version == QuotaSheet([other]).version


class TestSubject:
    def test_each_kind_lies_in_one_scope(self) -> None:
        some = new_id()
        subjects = [
            QuotaSubject.tenant(TenantId(some)),
            QuotaSubject.account(AccountId(some)),
            QuotaSubject.service_account(ServiceAccountId(some)),
            QuotaSubject.key(ApiKeyId(some), Holder(account_id=AccountId(some))),
        ]

        assert [each.scope for each in subjects] == ["tenant", "user", "user", "key"]


class TestWire:
    @pytest.mark.parametrize(
        ("sent", "limit", "answered"),
        [
            ("0", 0, "0"),
            ("9007199254740992", 2**53, "9007199254740992"),
            ('"9007199254740993"', 2**53 + 1, '"9007199254740993"'),
            ("9223372036854775807", 2**63 - 1, '"9223372036854775807"'),
        ],
    )
    def test_amounts_are_exact_in_and_out(self, sent: str, limit: int, answered: str) -> None:
        body = f'{{"quotas": [{{"meter": "tokens", "period": "month", "limit": {sent}}}]}}'

        (wish,) = wishes_of(QuotasUpdate.model_validate_json(body))

        assert wish.limit == limit
        sheet = QuotaSheet([details(limit=limit, used=0, held=0)])
        told = QuotaSheetRead.model_validate(sheet).model_dump_json()
        assert f'"limit":{answered},' in told
        assert f'"remaining":{answered},' in told

    @pytest.mark.parametrize("sent", ["-1", '"-1"', '""', '"1 "', "1.0", "true", "null", '"+1"'])
    def test_what_is_no_amount_is_refused(self, sent: str) -> None:
        body = f'{{"quotas": [{{"meter": "tokens", "period": "month", "limit": {sent}}}]}}'

        with pytest.raises(ValidationError):
            QuotasUpdate.model_validate_json(body)
