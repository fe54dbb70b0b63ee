"""What is held covers what may be used, and what was used is priced exactly."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.charging import (
    DEFAULT_MOST_OUTPUT,
    MARGIN_TOKENS,
    CallTooLargeError,
    HoldPlan,
    figures_of,
    most_output_at,
    most_output_of,
    plan_hold,
    progress_of,
)
from maas.inference.domain.route import Route, RouteLimits, RouteTarget, TargetPrice
from maas.shared.domain.pricing import MAX_PRICE, Price, Prices
from maas.user.public import MAX_CALL_AMOUNT, MAX_CALL_NANOS, Amounts
from tests.factories.calls import make_ask
from tests.factories.routes import make_route, make_target

amounts = st.one_of(
    st.decimals(min_value=0, max_value=1_000, places=12),
    st.decimals(min_value=0, max_value=Decimal("0.000001"), places=12),
)
maybe = st.one_of(st.none(), amounts)
counts = st.integers(min_value=0, max_value=3_000_000)


def priced(
    input_: object = 0, output: object = 0, *, currency: str = "USD", **more: Any
) -> TargetPrice:
    kinds = {name: Price(Decimal(str(each))) for name, each in more.items() if name != "request"}
    request = Decimal(str(more["request"])) if "request" in more else None
    prices = Prices(
        currency=currency,
        input=Price(Decimal(str(input_))),
        output=Price(Decimal(str(output))),
        request=request,
        **kinds,
    )
    return TargetPrice(id=None, prices=prices)


@st.composite
def prices(draw: st.DrawFn) -> TargetPrice:
    more = {name: draw(maybe) for name in ("cached", "reasoning", "request")}
    told: dict[str, Any] = {name: each for name, each in more.items() if each is not None}
    return priced(draw(amounts), draw(amounts), **told)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    chosen = draw(st.lists(prices(), min_size=1, max_size=4))
    return make_route(*(make_target(n, price=price) for n, price in enumerate(chosen)))


def asking(**values: object) -> Ask:
    return replace(make_ask(), **values)  # type: ignore[arg-type]  # named as the fields are


def asks() -> st.SearchStrategy[Ask]:
    return st.builds(asking, most_input=counts, most_output=counts, choices=st.integers(1, 5))


def cut(plan: HoldPlan, share: Fraction) -> Amounts:
    """Grant so much of the way from the least to what was wanted, as `quota_reserve` does."""
    least, wanted = plan.least, plan.wanted
    tokens = least.tokens + int((wanted.tokens - least.tokens) * share)
    cost = least.cost_nanos + ceil((wanted.cost_nanos - least.cost_nanos) * share) + 2
    return replace(wanted, tokens=tokens, cost_nanos=min(wanted.cost_nanos, cost))


class TestHolds:
    @given(route=routes(), ask=asks(), share=st.fractions(0, 1), data=st.data())
    def test_what_is_granted_covers_all_that_may_be_used_of_it(
        self,
        route: Route,
        ask: Ask,
        share: Fraction,
        data: st.DataObject,
    ) -> None:
        granted = cut(plan_hold(ask, route), share)

        each = most_output_of(ask, granted)
        assert each is not None
        fed = data.draw(st.integers(0, ask.most_input))
        given = data.draw(st.integers(0, each * ask.choices))
        reasoned = data.draw(st.integers(0, given))
        used = TokenCounts(
            input=fed,
            cached=data.draw(st.integers(0, fed)),
            output=given - reasoned,
            reasoning=reasoned,
        )

        assert each >= 1
        assert used.total <= granted.tokens
        for target in route.targets:
            assert figures_of(used, target.price, is_billed=True).cost_nanos <= granted.cost_nanos

    def test_without_max_tokens_the_target_tells_how_long_an_answer_may_be(self) -> None:
        ask = asking(most_input=100, most_output=None, choices=2)

        def tokens(route: Route) -> int:
            return plan_hold(ask, route, default_output=1_000).wanted.tokens - ask.most_input

        assert tokens(make_route(make_target())) == 2_000
        assert tokens(make_route(make_target(max_output_tokens=300))) == 600
        short = RouteLimits(max_output_tokens=50)
        assert tokens(make_route(make_target(), limits=short)) == 100
        assert DEFAULT_MOST_OUTPUT == 4_096

    def test_no_target_is_asked_for_more_than_it_is_able_to(self) -> None:
        ask = replace(asking(most_input=900, most_output=None), likely_input=200)
        small, large = make_target(max_output_tokens=1_000), make_target(max_output_tokens=8_000)
        tight, full = make_target(context_length=4_096), make_target(context_length=300)

        def most(target: RouteTarget, ask: Ask = ask) -> int | None:
            return most_output_at(target, ask, 4_096)

        assert (most(small), most(large), most(make_target())) == (1_000, 4_096, 4_096)
        assert (most(tight), most(full)) == (4_096 - 200 - 50 - MARGIN_TOKENS, 1)
        # What the caller says himself, he is told by who refuses it.
        assert most(small, replace(ask, most_output=9_999)) == 4_096
        assert most_output_at(small, ask, None) is None

    def test_an_embedding_has_no_answer(self) -> None:
        ask = asking(kind="embeddings", most_output=None, most_input=100)

        plan = plan_hold(ask, make_route(make_target(price=priced("0.02"))))

        assert plan.wanted == plan.least == Amounts(tokens=100, cost_nanos=2_000, currency="USD")
        assert most_output_of(ask, plan.wanted) is None

    def test_max_tokens_of_nothing_is_held_as_one_token(self) -> None:
        plan = plan_hold(asking(most_input=5, most_output=0, choices=3), make_route(make_target()))

        assert plan.wanted.tokens == 8

    def test_a_deployment_without_prices_has_none_held(self) -> None:
        plan = plan_hold(make_ask(), make_route(make_target()))

        assert (plan.wanted.cost_nanos, plan.wanted.currency) == (0, None)

    def test_a_free_one_costs_nothing_of_its_currency(self) -> None:
        plan = plan_hold(make_ask(), make_route(make_target(price=priced(0, 0, currency="CNY"))))

        assert (plan.wanted.cost_nanos, plan.wanted.currency) == (0, "CNY")

    def test_more_than_the_ledger_takes_is_cut_to_it(self) -> None:
        ask = asking(most_input=10, most_output=10**30, choices=7)

        plan = plan_hold(ask, make_route(make_target(price=priced(1, 1))))

        assert plan.wanted.tokens == MAX_CALL_AMOUNT
        assert most_output_of(ask, plan.wanted) == (MAX_CALL_AMOUNT - 10) // 7

    def test_so_is_more_than_it_can_price(self) -> None:
        dear = priced(1, MAX_PRICE)
        ask = asking(most_input=10, most_output=10**9)

        plan = plan_hold(ask, make_route(make_target(price=dear)))
        beyond = TokenCounts(output=plan.wanted.tokens - 10 + 1)

        assert plan.wanted.cost_nanos <= MAX_CALL_NANOS
        assert dear.prices.cost_of(output_tokens=beyond.output).nano > MAX_CALL_NANOS - 10**15

    @pytest.mark.parametrize(
        "ask",
        [
            asking(most_input=MAX_CALL_AMOUNT),
            asking(most_input=1, choices=10**18),
            asking(kind="embeddings", most_input=MAX_CALL_AMOUNT + 1),
        ],
    )
    def test_what_cannot_be_booked_is_refused(self, ask: Ask) -> None:
        with pytest.raises(CallTooLargeError):
            plan_hold(ask, make_route(make_target()))

    def test_so_is_what_no_ledger_could_price(self) -> None:
        with pytest.raises(CallTooLargeError):
            plan_hold(asking(most_input=10**9), make_route(make_target(price=priced(MAX_PRICE))))


class TestFigures:
    @pytest.mark.parametrize(
        ("price", "tokens", "nanos"),
        [
            ("0.000001", 100, 0),
            ("0.000001", 500, 1),  # half a nano-unit
            ("0.000001", 1_000_000, 1_000),
            ("0.000000000001", 10**12, 1_000),
            ("0.123456789012", 8, 988),
            ("0.123456789012", 10**12, 123_456_789_012_000),
        ],
    )
    def test_prices_below_a_micro_unit_and_of_twelve_decimals_are_exact(
        self, price: str, tokens: int, nanos: int
    ) -> None:
        figures = figures_of(TokenCounts(output=tokens), priced(0, price), is_billed=True)

        assert (figures.cost_nanos, figures.currency) == (nanos, "USD")

    def test_each_kind_has_its_price_and_each_request_too(self) -> None:
        price = priced(2, 8, cached="0.5", reasoning=4, request="0.01")
        used = TokenCounts(input=1_000, cached=400, output=100, reasoning=50)

        figures = figures_of(used, price, is_billed=True, provider="openai")

        assert figures.cost_nanos == 1_200_000 + 200_000 + 800_000 + 200_000 + 10_000_000
        assert (figures.input_tokens, figures.cached_tokens) == (1_000, 400)
        assert (figures.output_tokens, figures.reasoning_tokens) == (100, 50)
        assert figures.provider == "openai"

    def test_a_request_that_came_to_nothing_costs_nothing(self) -> None:
        figures = figures_of(TokenCounts(), priced(2, 8, request="0.01"), is_billed=False)

        assert (figures.cost_nanos, figures.currency) == (0, "USD")

    @given(
        figures=st.fixed_dictionaries(
            {
                name: st.integers(-(10**30), 10**30)
                for name in ("input", "cached", "output", "reasoning")
            }
        )
    )
    def test_what_an_upstream_lies_is_booked_within_bounds(self, figures: dict[str, int]) -> None:
        booked = figures_of(TokenCounts(**figures), priced(MAX_PRICE, MAX_PRICE), is_billed=True)

        assert 0 <= booked.cached_tokens <= booked.input_tokens <= MAX_CALL_AMOUNT
        assert 0 <= booked.cost_nanos <= MAX_CALL_NANOS

    @given(route=routes(), output=counts)
    def test_progress_is_told_at_the_dearest_target(self, route: Route, output: int) -> None:
        assume(output)
        seen = TokenCounts(input=7, output=output)

        noted = progress_of(seen, route)

        assert noted.tokens == 7 + output
        assert noted.cost_nanos == max(
            figures_of(seen, target.price, is_billed=True).cost_nanos for target in route.targets
        )
