"""What the trail keeps of a call: its receipt, in plain values, and never a word of the prompt."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, TypeAlias
from uuid import UUID

from maas.audit.public import AuditedResource, ChangeValue
from maas.inference.application.ports import AttemptFacts, Try
from maas.inference.domain.call import Ask
from maas.inference.domain.route import Route, RouteTarget, TargetPrice
from maas.user.public import Hold, Payer, UsageFigures, exact

COMPLETED: Final = "inference.completed"

Facts: TypeAlias = dict[str, ChangeValue]

MAX_TRIES_TOLD: Final = 16
"""The last ones; a value of the trail is at most 2,000 characters."""

MAX_DECISION_CHARS: Final = 300

CALL: Final = AuditedResource(
    "deployment",
    frozenset(
        {
            "name", "revision", "kind", "is_stream", "choices", "is_foreign", "is_cache_hit",
            "answer_of", "target_id", "provider_id", "provider_name", "provider_model_id",
            "upstream_model", "model_id", "version_id", "version", "digest", "price_id",
            "input_price", "cached_price", "output_price", "reasoning_price", "request_price",
            "currency", "cost_nanos", "input_tokens", "cached_tokens", "output_tokens",
            "reasoning_tokens", "is_estimated", "status", "tries", "decision", "first_byte_ms",
            "duration_ms", "hold_id", "held_at", "held_tokens", "held_cost_nanos",
        }
    ),
)  # fmt: skip


def facts_of_call(ask: Ask, route: Route, payer: Payer) -> Facts:
    """Tell what is known before it is sent; a foreign deployment is another tenant's."""
    return {
        "name": route.name,
        "revision": route.revision,
        "kind": ask.kind,
        "is_stream": ask.is_stream,
        "choices": ask.choices,
        "is_foreign": route.tenant_id != payer.tenant_id,
        "is_cache_hit": False,
    }


def facts_of_hold(hold: Hold) -> Facts:
    """Name the hold, by which the ledger's row is found."""
    return {
        "hold_id": str(hold.id),
        "held_at": hold.created_at.isoformat(),
        "held_tokens": hold.granted.tokens,
        "held_cost_nanos": exact(hold.granted.cost_nanos),
    }


def facts_of_attempt(facts: AttemptFacts, *, is_foreign: bool) -> Facts:
    """Tell who answered, at which price; whose supplier it is, stays between its tenant and it."""
    told: Facts = {
        "target_id": str(facts.target.id),
        **_facts_of_weights(facts.target),
        **_facts_of_price(facts.target.price),
        "status": facts.status,
        "tries": _spell_tries(facts.tries),
        "decision": facts.decision[:MAX_DECISION_CHARS],
        "first_byte_ms": None
        if facts.first_byte is None
        else round(facts.first_byte.total_seconds() * 1000),
    }
    if not is_foreign:
        origin = facts.target.origin
        told["provider_id"] = _text(origin.provider_id)
        told["provider_name"] = origin.provider_name
        told["provider_model_id"] = _text(origin.provider_model_id)
        told["upstream_model"] = facts.target.endpoint.model
    return told


def facts_of_figures(figures: UsageFigures, *, is_estimated: bool) -> Facts:
    return {
        "input_tokens": figures.input_tokens,
        "cached_tokens": figures.cached_tokens,
        "output_tokens": figures.output_tokens,
        "reasoning_tokens": figures.reasoning_tokens,
        "currency": figures.currency,
        "cost_nanos": exact(figures.cost_nanos),
        "is_estimated": is_estimated,
    }


def _facts_of_weights(target: RouteTarget) -> Facts:
    origin = target.origin
    return {
        "model_id": _text(origin.model_id),
        "version_id": _text(origin.version_id),
        "version": origin.version,
        "digest": origin.digest,
    }


def _facts_of_price(price: TargetPrice | None) -> Facts:
    if price is None:
        return {}
    prices = price.prices
    kinds = {
        "input_price": prices.input,
        "cached_price": prices.cached,
        "output_price": prices.output,
        "reasoning_price": prices.reasoning,
    }
    told = {name: _decimal(each.per_million) for name, each in kinds.items() if each is not None}
    if prices.request is not None:
        told["request_price"] = _decimal(prices.request)
    return {"price_id": _text(price.id), **told}


def _spell_tries(tries: Sequence[Try]) -> str:
    return ", ".join(
        f"{each.target_id} {_outcome(each)} {round(each.took.total_seconds() * 1000)}ms"
        for each in tries[-MAX_TRIES_TOLD:]
    )


def _outcome(tried: Try) -> object:
    return tried.fault or tried.status or "left"


def _decimal(amount: Decimal) -> str:
    return format(amount.normalize(), "f")


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)
