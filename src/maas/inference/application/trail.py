"""What the trail may hold about deployments."""

from maas.audit.public import AuditedResource, ChangeValue
from maas.inference.domain.deployment import Deployment, Target
from maas.model.public import VersionReference
from maas.shared.domain.pricing import Prices

DEPLOYMENT = AuditedResource(
    "deployment",
    frozenset(
        {
            "name",
            "description",
            "status",
            "visibility",
            "currency",
            "max_body_bytes",
            "max_output_tokens",
            "max_choices",
            "cache_seconds",
            "capture_days",
            "targets",
            "granted_to",
        }
    ),
)


def trail_of(deployment: Deployment) -> dict[str, ChangeValue]:
    """Tell all of it, each target as one string: the trail holds nothing nested."""
    return {
        "name": str(deployment.name),
        "description": None if deployment.description is None else str(deployment.description),
        "status": deployment.status,
        "visibility": deployment.visibility,
        "currency": deployment.currency,
        "max_body_bytes": deployment.max_body_bytes,
        "max_output_tokens": deployment.max_output_tokens,
        "max_choices": deployment.max_choices,
        "cache_seconds": deployment.cache_seconds,
        "capture_days": deployment.capture_days,
        "targets": [_spell(target) for target in deployment.targets],
    }


def _spell(target: Target) -> str:
    limits = target.limits
    words = {
        "id": target.id,
        **_leads(target),
        "priority": target.priority,
        "weight": target.weight,
        "status": target.status,
        "max_concurrent": limits.max_concurrent,
        "max_queued": limits.max_queued,
        "queue_seconds": limits.queue_for.total_seconds(),
        "connect_seconds": limits.connect.total_seconds(),
        "first_byte_seconds": limits.first_byte.total_seconds(),
        "idle_seconds": limits.idle.total_seconds(),
        "total_seconds": limits.total.total_seconds(),
        **({} if target.price is None else _price(target.price)),
    }
    return " ".join(f"{name}={value}" for name, value in words.items() if value is not None)


def _leads(target: Target) -> dict[str, object]:
    if isinstance(target.to, VersionReference):
        to = target.to
        return {"model_id": to.model_id, "version": to.version, "alias": to.alias}
    return {"provider_model_id": target.to}


def _price(prices: Prices) -> dict[str, object]:
    meters = {
        "input": prices.input.per_million,
        "output": prices.output.per_million,
        "cached": None if prices.cached is None else prices.cached.per_million,
        "reasoning": None if prices.reasoning is None else prices.reasoning.per_million,
        "request": prices.request,
    }
    amounts = {
        name: f"{amount.normalize():f}" for name, amount in meters.items() if amount is not None
    }
    return {"currency": prices.currency, **amounts}
