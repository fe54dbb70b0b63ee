"""Routes and their targets, stating only what a test is about."""

from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

from maas.inference.domain.route import (
    Endpoint,
    Origin,
    Route,
    RouteLimits,
    RouteTarget,
    TargetLimits,
)
from maas.inference.public import DeploymentId, TargetId
from maas.shared.domain.ids import TenantId

DEPLOYMENT = DeploymentId(UUID(int=1))


def make_target(number: int = 1, **values: Any) -> RouteTarget:
    """Make one; `url` is what it is called by, and further values of its limits go there."""
    url = values.pop("url", f"https://supplier-{number}.test/v1/chat/completions")
    kinds = values.pop("kinds", ("chat",))
    limits = {key: values.pop(key) for key in list(values) if key in TargetLimits.__slots__}
    return RouteTarget(
        **{
            "id": TargetId(UUID(int=number)),
            "priority": 0,
            "weight": 1,
            "endpoint": Endpoint(
                protocol="openai",
                reach=values.pop("reach", "public"),
                provider_kind="openai",
                urls=dict.fromkeys(kinds, url),
                model=values.pop("model", "gpt-4o-mini"),
                headers={"Authorization": "Bearer sk-canary"},
            ),
            "origin": Origin(),
            "price": None,
            "limits": TargetLimits(**limits),
            **values,
        }
    )


def make_route(*targets: RouteTarget, **values: Any) -> Route:
    return Route(
        **{
            "deployment_id": DEPLOYMENT,
            "tenant_id": TenantId(UUID(int=2)),
            "name": "gemma",
            "revision": 1,
            "targets": targets,
            "unfit": {},
            "limits": RouteLimits(),
            **values,
        }
    )


def seeded(seed: int = 1) -> Random:
    return Random(seed)  # noqa: S311  tests are to find the same each time


def ids(targets: Sequence[RouteTarget]) -> list[int]:
    return [target.id.int for target in targets]
