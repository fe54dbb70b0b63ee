"""Deployments and targets as rows, and back."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

from maas.inference.domain.deployment import (
    Deployment,
    DeploymentName,
    DeploymentText,
    Target,
)
from maas.inference.domain.route import TargetLimits
from maas.inference.public import TargetId
from maas.model.public import ModelId, ProviderModelId, VersionReference
from maas.shared.domain.pricing import Price, Prices

# By name: while two releases run side by side, the table may have columns of the newer one.
DEPLOYMENT_COLUMNS: Final = """
d.id, d.tenant_id, d.name, d.description, d.status, d.visibility, d.currency, d.max_body_bytes,
d.max_output_tokens, d.max_choices, d.cache_seconds, d.capture_days, d.created_by, d.created_at,
d.updated_at, d.deleted_at, d.revision
"""


class Row(Protocol):
    """A row by the names of its columns, SQLAlchemy's or the driver's own."""

    def __getitem__(self, name: str, /) -> Any: ...


def read_deployment(row: Iterable[tuple[str, Any]], targets: Sequence[Row]) -> Deployment:
    """Make it of the items of its row, and of the rows of its targets in their order."""
    values = dict(row)
    description = values.pop("description")
    values["name"] = DeploymentName(values["name"])
    return Deployment(
        **values,
        description=None if description is None else DeploymentText(description),
        targets=tuple(map(read_target, targets)),
    )


def target_row(deployment: Deployment, position: int, target: Target) -> dict[str, Any]:
    return {
        "id": target.id,
        "deployment_id": deployment.id,
        "tenant_id": deployment.tenant_id,
        "position": position,
        **_leads(target),
        "priority": target.priority,
        "weight": target.weight,
        "status": target.status,
        **_limits(target.limits),
        **_prices(target.price),
    }


def read_target(row: Row) -> Target:
    limits = TargetLimits(
        max_concurrent=row["max_concurrent"],
        max_queued=row["max_queued"],
        queue_for=timedelta(seconds=row["queue_seconds"]),
        connect=timedelta(seconds=row["connect_seconds"]),
        first_byte=timedelta(seconds=row["first_byte_seconds"]),
        idle=timedelta(seconds=row["idle_seconds"]),
        total=timedelta(seconds=row["total_seconds"]),
    )
    return Target(
        id=TargetId(row["id"]),
        to=ProviderModelId(row["provider_model_id"])
        if row["kind"] == "provider"
        else VersionReference(
            model_id=ModelId(row["model_id"]), version=row["version"], alias=row["alias"]
        ),
        priority=row["priority"],
        weight=row["weight"],
        status=row["status"],
        limits=limits,
        price=_read_prices(row),
    )


def _leads(target: Target) -> dict[str, Any]:
    if isinstance(target.to, VersionReference):
        to = target.to
        return {
            "kind": "local",
            "provider_model_id": None,
            "model_id": to.model_id,
            "version": to.version,
            "alias": to.alias,
        }
    return {
        "kind": "provider",
        "provider_model_id": target.to,
        "model_id": None,
        "version": None,
        "alias": None,
    }


def _limits(limits: TargetLimits) -> dict[str, Any]:
    return {
        "max_concurrent": limits.max_concurrent,
        "max_queued": limits.max_queued,
        "queue_seconds": _seconds(limits.queue_for),
        "connect_seconds": _seconds(limits.connect),
        "first_byte_seconds": _seconds(limits.first_byte),
        "idle_seconds": _seconds(limits.idle),
        "total_seconds": _seconds(limits.total),
    }


def _seconds(time: timedelta) -> int:
    return time // timedelta(seconds=1)


def _prices(prices: Prices | None) -> dict[str, Any]:
    if prices is None:
        return dict.fromkeys(("currency", "input", "output", "cached", "reasoning", "request"))
    return {
        "currency": prices.currency,
        "input": prices.input.per_million,
        "output": prices.output.per_million,
        "cached": None if prices.cached is None else prices.cached.per_million,
        "reasoning": None if prices.reasoning is None else prices.reasoning.per_million,
        "request": prices.request,
    }


def _read_prices(row: Row) -> Prices | None:
    if row["currency"] is None:
        return None
    return Prices(
        currency=row["currency"],
        input=Price(row["input"]),
        output=Price(row["output"]),
        cached=None if row["cached"] is None else Price(row["cached"]),
        reasoning=None if row["reasoning"] is None else Price(row["reasoning"]),
        request=row["request"],
    )
