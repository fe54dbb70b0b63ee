from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.shared.interface.problems import problem_of
from maas.user.domain.quota import (
    MAX_LIMIT,
    InvalidQuotaError,
    Quota,
    QuotaId,
    period_start,
    resets_at,
)
from maas.user.public import (
    EXACT_IN_JSON,
    MAX_CALL_AMOUNT,
    MAX_CALL_BYTES,
    MAX_CALL_NANOS,
    Amounts,
    BudgetCurrencyError,
    BudgetExceededError,
    Payer,
    QuotaExceededError,
    Shortage,
    UsageFigures,
)
from tests.fakes.edge import make_principal

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def make_quota(**parts: object) -> Quota:
    given: dict[str, object] = {
        "id": QuotaId(new_id()),
        "tenant_id": DEFAULT_TENANT_ID,
        "scope": "user",
        "subject_id": new_id(),
        "meter": "tokens",
        "period": "month",
        "currency": None,
        "limit_amount": 1_000,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Quota(**{**given, **parts})  # type: ignore[arg-type]  # each test says what it varies


class TestPeriods:
    @pytest.mark.parametrize(
        ("at", "first", "next_first"),
        [
            (NOW, date(2026, 11, 1), datetime(2026, 12, 1, tzinfo=UTC)),
            (
                datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
                date(2026, 12, 1),
                datetime(2027, 1, 1, tzinfo=UTC),
            ),
            (
                # Still October in UTC.
                datetime(2026, 11, 1, 7, tzinfo=timezone(timedelta(hours=8))),
                date(2026, 10, 1),
                datetime(2026, 11, 1, tzinfo=UTC),
            ),
        ],
    )
    def test_months_are_those_of_utc(self, at: datetime, first: date, next_first: datetime) -> None:
        assert period_start("month", at) == first
        assert resets_at("month", at) == next_first

    def test_a_total_has_one_period_and_no_end(self) -> None:
        assert period_start("total", NOW) == date(1970, 1, 1)
        assert resets_at("total", NOW) is None


class TestQuota:
    @pytest.mark.parametrize(
        "parts",
        [
            {"meter": "cost"},
            {"currency": "USD"},
            {"meter": "storage", "period": "month"},
            {"limit_amount": -1},
            {"limit_amount": MAX_LIMIT + 1},
        ],
    )
    def test_refuses_what_does_not_go_together(self, parts: dict[str, object]) -> None:
        with pytest.raises(InvalidQuotaError):
            make_quota(**parts)

    @pytest.mark.parametrize(
        "parts",
        [
            {"meter": "cost", "currency": "EUR"},
            {"meter": "storage", "period": "total"},
            {"limit_amount": 0},
            {"limit_amount": MAX_LIMIT},
        ],
    )
    def test_takes_what_does(self, parts: dict[str, object]) -> None:
        assert make_quota(**parts).version == 1

    def test_a_new_limit_is_a_new_version(self) -> None:
        quota = make_quota()

        quota.set_limit(7, at=NOW + timedelta(hours=1))

        assert (quota.limit_amount, quota.version) == (7, 2)
        assert quota.updated_at == NOW + timedelta(hours=1)

    def test_a_bad_limit_changes_nothing(self) -> None:
        quota = make_quota()

        with pytest.raises(InvalidQuotaError):
            quota.set_limit(-1, at=NOW)

        assert (quota.limit_amount, quota.version) == (1_000, 1)


class TestAmounts:
    @pytest.mark.parametrize(
        "parts",
        [
            {"tokens": -1},
            {"requests": -1},
            {"tokens": MAX_CALL_AMOUNT + 1},
            {"storage_bytes": MAX_CALL_BYTES + 1},
            {"cost_nanos": -1, "currency": "USD"},
            {"cost_nanos": MAX_CALL_NANOS + 1, "currency": "USD"},
            {"cost_nanos": 1},
            {"currency": "usd"},
            {"currency": "DOLLAR"},
            {"currency": "ÄÖÜ"},
        ],
    )
    def test_refuse_what_no_ledger_could_book(self, parts: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"amount|cost|currency"):
            Amounts(**parts)  # type: ignore[arg-type]  # each case says what it varies

    def test_figures_count_cached_tokens_as_input(self) -> None:
        used = UsageFigures(
            input_tokens=100, cached_tokens=80, output_tokens=10, reasoning_tokens=5
        )

        assert used.tokens == 115

    def test_figures_are_not_negative(self) -> None:
        with pytest.raises(ValueError, match="amount"):
            UsageFigures(cached_tokens=-1)


class TestPayer:
    def test_is_who_calls(self) -> None:
        principal = make_principal()

        payer = Payer.of(principal)

        assert (payer.tenant_id, payer.account_id) == (principal.tenant_id, principal.account_id)
        assert (payer.actor_kind, payer.api_key_id) == ("account", None)


def make_shortage(**parts: object) -> Shortage:
    given: dict[str, object] = {
        "scope": "key",
        "meter": "tokens",
        "period": "month",
        "limit": 100,
        "used": 60,
        "held": 30,
        "needed": 11,
        "currency": None,
        "resets_at": datetime(2026, 12, 1, tzinfo=UTC),
    }
    return Shortage(**{**given, **parts})  # type: ignore[arg-type]  # each test says what it varies


class TestRefusals:
    def test_a_quota_says_what_is_left_and_when_to_come_back(self) -> None:
        problem = problem_of(QuotaExceededError(make_shortage(), retry_after=timedelta(seconds=90)))

        assert (problem.status, problem.code) == (429, "quota-exceeded")
        assert problem.headers["Retry-After"] == "90"
        assert problem.extensions == {
            "scope": "key",
            "meter": "tokens",
            "period": "month",
            "limit": 100,
            "used": 60,
            "held": 30,
            "needed": 11,
            "currency": None,
            "resets_at": "2026-12-01T00:00:00Z",
        }

    def test_a_quota_is_told_to_people_in_one_sentence(self) -> None:
        by_month = QuotaExceededError(make_shortage(limit=1_000, used=960))
        in_all = BudgetExceededError(
            make_shortage(
                scope="tenant",
                meter="cost",
                currency="EUR",
                period="total",
                resets_at=None,
                limit=50_000_000_000,
                used=49_990_000_000,
                held=0,
                needed=20_500_000,
            )
        )

        assert by_month.detail == (
            "The quota of the API key is 1,000 tokens a month: 960 used, 30 set aside for calls "
            "under way, and this one may need 11. "
            "Ask for less, wait for 2026-12-01, or have the limit raised."
        )
        assert in_all.detail == (
            "The quota of the tenant is 50 EUR in all: 49.99 EUR used, 0 EUR set aside for calls "
            "under way, and this one may need 0.0205 EUR. "
            "Ask for less, or have the limit raised."
        )

    def test_a_budget_is_a_matter_of_payment(self) -> None:
        shortage = make_shortage(
            meter="cost", currency="USD", period="total", resets_at=None, limit=EXACT_IN_JSON + 1
        )
        problem = problem_of(BudgetExceededError(shortage))

        assert (problem.status, problem.code) == (402, "budget-exceeded")
        assert "Retry-After" not in problem.headers
        assert problem.extensions["limit"] == str(EXACT_IN_JSON + 1)
        assert problem.extensions["resets_at"] is None

    def test_another_currency_is_a_matter_of_payment_too(self) -> None:
        assert problem_of(BudgetCurrencyError()).status == 402
