"""Where a name leads: a deployment with its targets, as all who call it share them for a moment.

A route is read from PostgreSQL, kept in memory for no longer than `ROUTE_SECONDS`, and holds what
calls need, keys of suppliers included: it is never logged, stored or sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from maas.inference.public import CallKind, DeploymentId, TargetId
from maas.model.public import (
    ModelId,
    PriceId,
    Protocol,
    ProviderId,
    ProviderKind,
    ProviderModelId,
    Uncallable,
    VersionId,
)
from maas.shared.domain.ids import TenantId
from maas.shared.domain.pricing import Prices

ROUTE_SECONDS: Final = 1.0
"""For so long a process may go by what it read: a change is felt everywhere within that."""

Unfit: TypeAlias = Uncallable | Literal["no-runtime", "no-price-in-currency"]
"""Why a target is not called: it leads to nothing that could be, nowhere, or costs nobody knows."""

EndpointReach: TypeAlias = Literal["public", "private", "runtime"]
"""A public address, one of the operator's private list, or the operator's own runtime host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How a target is called. `urls` has the kinds of calls it takes; headers carry its key.

    `ready_within` is how long it may take to get ready, whatever else is said of its answers.
    """

    protocol: Protocol
    reach: EndpointReach
    provider_kind: ProviderKind | None
    urls: Mapping[CallKind, str]
    model: str
    headers: Mapping[str, str] = field(repr=False)
    ready_within: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPrice:
    """What a call costs here, in one currency; `id` tells a supplier's price, if it is one."""

    id: PriceId | None
    prices: Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What answers, for the receipt: a supplier's model, or a version of the registry."""

    provider_id: ProviderId | None = None
    provider_name: str | None = None
    provider_model_id: ProviderModelId | None = None
    model_id: ModelId | None = None
    version_id: VersionId | None = None
    version: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLimits:
    """How one target may be used. A process enforces its share of what may be under way.

    `queue_for` is how long a call waits for its turn; `first_byte` is from the request until the
    answer's head, `idle` between two pieces of it, `total` of everything.
    """

    max_concurrent: int | None = None
    max_queued: int = 100
    queue_for: timedelta = timedelta(seconds=10)
    connect: timedelta = timedelta(seconds=5)
    first_byte: timedelta = timedelta(seconds=60)
    idle: timedelta = timedelta(seconds=60)
    total: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTarget:
    """One way to an answer. Lower priorities are asked first, weights share among equals."""

    id: TargetId
    priority: int
    weight: int
    endpoint: Endpoint
    origin: Origin
    price: TargetPrice | None
    limits: TargetLimits
    context_length: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLimits:
    """What the deployment allows of one call; `None` allows everything."""

    max_body_bytes: int | None = None
    max_output_tokens: int | None = None
    max_choices: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A deployment as it is called. Its tenant may be another than the caller's.

    `targets` are those that can be called now and whose price is in one currency, all of them in
    the same; `unfit` tells of each other one why not, for the operator.
    """

    deployment_id: DeploymentId
    tenant_id: TenantId
    name: str
    revision: int
    targets: Sequence[RouteTarget]
    unfit: Mapping[TargetId, Unfit]
    limits: RouteLimits
    cache_for: timedelta | None = None
    captures: bool = False
    keeps_captures: timedelta | None = None
