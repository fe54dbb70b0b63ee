"""What a call may cost before it is sent, and what it did cost after: whole numbers, no surprises.

A hold covers the longest answer at the dearest target. What is granted lies on a straight line from
the shortest answer to the longest; the dearest price of several is never above that line, so what
was granted covers whatever the tokens granted may cost, at any target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.route import Route, RouteTarget, TargetPrice
from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.pricing import InvalidUsageError, Prices
from maas.user.public import MAX_CALL_AMOUNT, MAX_CALL_NANOS, Amounts, UsageFigures

DEFAULT_MOST_OUTPUT: Final = 4_096
"""Where neither the caller nor the target tells how long an answer may be."""

MARGIN_TOKENS: Final = 64
"""What a template adds to a prompt, about; a quarter of the prompt more for a wrong estimate."""

_NO_PRICE: Final = MAX_CALL_NANOS + 1


class CallTooLargeError(InvalidInputError):
    code = "call-too-large"
    title = "No call can be as large as this"

    def __init__(self) -> None:
        super().__init__(
            "Prompt and answers would have more tokens, or cost more, than the ledger can book of "
            "one call: ask for less."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlan:
    """What to hold, and the least that makes sense: the prompt with a token for each answer."""

    wanted: Amounts
    least: Amounts


def plan_hold(ask: Ask, route: Route, *, default_output: int = DEFAULT_MOST_OUTPUT) -> HoldPlan:
    """Tell what to hold for a call.

    Raises:
        CallTooLargeError: not even the shortest answer fits the ledger.
    """
    prices = [target.price.prices for target in route.targets if target.price is not None]
    if ask.kind == "embeddings":
        shortest = longest = 0
    else:
        shortest = ask.choices
        longest = max(_longest(ask, route, default_output) * ask.choices, shortest)
    longest = min(longest, MAX_CALL_AMOUNT - ask.most_input)
    least_cost = _dearest(prices, ask, shortest)
    if longest < shortest or least_cost > MAX_CALL_NANOS:
        raise CallTooLargeError
    most_cost = _dearest(prices, ask, longest)
    if most_cost > MAX_CALL_NANOS:
        longest = _cut(prices, ask, shortest, longest)
        most_cost = _dearest(prices, ask, longest)
    currency = prices[0].currency if prices else None
    return HoldPlan(
        wanted=_hold(ask, longest, most_cost, currency),
        least=_hold(ask, shortest, least_cost, currency),
    )


def most_output_of(ask: Ask, granted: Amounts) -> int | None:
    """Tell how long each answer may be with what was granted; an embedding has none."""
    if ask.kind == "embeddings":
        return None
    return (granted.tokens - ask.most_input) // ask.choices


def most_output_at(target: RouteTarget, ask: Ask, most_output: int | None) -> int | None:
    """Tell how long each answer may be at one target, which refuses more than it is able to.

    A caller's own word is for the target to judge.
    """
    if most_output is None or ask.most_output is not None:
        return most_output
    most = min(most_output, target.max_output_tokens or most_output)
    if target.context_length is not None:
        likely = ask.likely_input * 5 // 4 + MARGIN_TOKENS
        most = min(most, target.context_length - min(ask.most_input, likely))
    return max(most, 1)


def _longest(ask: Ask, route: Route, default_output: int) -> int:
    if ask.most_output is not None:
        return ask.most_output
    longest = max(target.max_output_tokens or default_output for target in route.targets)
    return min(longest, route.limits.max_output_tokens or longest)


def _cut(prices: Sequence[Prices], ask: Ask, shortest: int, longest: int) -> int:
    """Find the longest answers whose cost fits the ledger."""
    while shortest + 1 < longest:
        middle = (shortest + longest) // 2
        if _dearest(prices, ask, middle) > MAX_CALL_NANOS:
            longest = middle
        else:
            shortest = middle
    return shortest


def _hold(ask: Ask, output: int, cost_nanos: int, currency: str | None) -> Amounts:
    return Amounts(tokens=ask.most_input + output, cost_nanos=cost_nanos, currency=currency)


def _dearest(prices: Sequence[Prices], ask: Ask, output: int) -> int:
    return max((_most_cost(each, ask.most_input, output) for each in prices), default=0)


def _most_cost(prices: Prices, most_input: int, output: int) -> int:
    """Price it as if all of it were of the dearest kind: who knows what is cached or reasoned."""
    is_cached = prices.cached is not None and prices.cached.steps > prices.input.steps
    is_reasoned = prices.reasoning is not None and prices.reasoning.steps > prices.output.steps
    try:
        cost = prices.cost_of(
            input_tokens=most_input,
            cached_tokens=most_input if is_cached else 0,
            output_tokens=0 if is_reasoned else output,
            reasoning_tokens=output if is_reasoned else 0,
            requests=1,
        )
    except InvalidUsageError:
        return _NO_PRICE
    return cost.nano


def figures_of(
    counts: TokenCounts, price: TargetPrice | None, *, is_billed: bool, provider: str | None = None
) -> UsageFigures:
    """Price what was used; a request that came to nothing costs nothing by itself.

    What is beyond all bounds is cut off there, so that it is booked at all.
    """
    used = _within_bounds(counts)
    return UsageFigures(
        input_tokens=used.input,
        cached_tokens=used.cached,
        output_tokens=used.output,
        reasoning_tokens=used.reasoning,
        cost_nanos=0 if price is None else cost_of(used, price.prices, is_billed=is_billed),
        currency=None if price is None else price.prices.currency,
        provider=provider,
    )


def cost_of(counts: TokenCounts, prices: Prices, *, is_billed: bool) -> int:
    try:
        cost = prices.cost_of(
            input_tokens=counts.input,
            cached_tokens=counts.cached,
            output_tokens=counts.output,
            reasoning_tokens=counts.reasoning,
            requests=int(is_billed),
        )
    except InvalidUsageError:
        return MAX_CALL_NANOS
    return min(cost.nano, MAX_CALL_NANOS)


def progress_of(seen: TokenCounts, route: Route) -> Amounts:
    """Tell what a call used so far, at the dearest target: which one it is, is not known yet."""
    used = _within_bounds(seen)
    prices = [target.price.prices for target in route.targets if target.price is not None]
    return Amounts(
        tokens=min(used.total, MAX_CALL_AMOUNT),
        cost_nanos=max((cost_of(used, each, is_billed=True) for each in prices), default=0),
        currency=prices[0].currency if prices else None,
    )


def _within_bounds(counts: TokenCounts) -> TokenCounts:
    fed = _bounded(counts.input)
    return TokenCounts(
        input=fed,
        cached=min(_bounded(counts.cached), fed),
        output=_bounded(counts.output),
        reasoning=_bounded(counts.reasoning),
    )


def _bounded(count: int) -> int:
    return max(0, min(count, MAX_CALL_AMOUNT))
