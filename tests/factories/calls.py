"""Calls and the routes they take, stating only what a test is about."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from maas.inference.domain.call import Ask
from maas.inference.domain.prompts import count_prompt
from maas.inference.domain.route import (
    Endpoint,
    Origin,
    Route,
    RouteLimits,
    RouteTarget,
    TargetLimits,
)
from maas.inference.public import CallKind, DeploymentId, TargetId
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId

DEPLOYMENT: Final = DeploymentId(UUID(int=0xDE))
TARGET: Final = TargetId(UUID(int=0x7A))
HELLO: Final[Mapping[str, object]] = {
    "model": "gemma",
    "messages": [{"role": "user", "content": "Hello"}],
}


def make_target(
    target_id: TargetId = TARGET,
    *,
    model: str = "gemma-3",
    origin: Origin | None = None,
    context_length: int | None = None,
) -> RouteTarget:
    endpoint = Endpoint(
        protocol="openai",
        reach="public",
        provider_kind="openai",
        urls={"chat": "https://models.test/v1/chat/completions"},
        model=model,
        headers={},
    )
    return RouteTarget(
        id=target_id,
        priority=0,
        weight=1,
        endpoint=endpoint,
        origin=origin or Origin(),
        price=None,
        limits=TargetLimits(),
        context_length=context_length,
    )


def make_route(
    *targets: RouteTarget,
    deployment_id: DeploymentId = DEPLOYMENT,
    tenant_id: TenantId = DEFAULT_TENANT_ID,
    revision: int = 1,
    limits: RouteLimits | None = None,
    cache_for: timedelta | None = None,
    keeps_captures: timedelta | None = None,
) -> Route:
    return Route(
        deployment_id=deployment_id,
        tenant_id=tenant_id,
        name="gemma",
        revision=revision,
        targets=targets or (make_target(),),
        unfit={},
        limits=limits or RouteLimits(),
        cache_for=cache_for,
        captures=keeps_captures is not None,
        keeps_captures=keeps_captures,
    )


def make_ask(
    body: Mapping[str, Any] = HELLO,
    *,
    model: str = "gemma",
    kind: CallKind = "chat",
    most_output: int | None = None,
    choices: int = 1,
    is_stream: bool = False,
) -> Ask:
    return Ask(
        kind=kind,
        model=model,
        body=dict(body),
        most_input=100,
        likely_input=min(100, count_prompt(body)),
        most_output=most_output,
        choices=choices,
        is_stream=is_stream,
    )
