"""Making a route: which targets of a deployment can be called now, and in which currency."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from maas.inference.domain.deployment import Deployment, Target, TargetThing
from maas.inference.domain.route import (
    Endpoint,
    Origin,
    Route,
    RouteLimits,
    RouteTarget,
    TargetPrice,
    Unfit,
)
from maas.inference.public import TargetId
from maas.model.public import ServedVersion, SuppliedModel, Uncallable

FindLocal = Callable[[ServedVersion], Endpoint | None]
"""Tells where a version of the registry runs; `None` where there is no runtime."""

NO_RUNTIME: Final = "no-runtime"
NO_PRICE: Final = "no-price-in-currency"
DISABLED: Final = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A target that can be called, with its price in each currency it has one in."""

    target: RouteTarget
    prices: Mapping[str, TargetPrice]


def make_route(
    deployment: Deployment,
    things: Mapping[TargetThing, SuppliedModel | ServedVersion | Uncallable],
    *,
    find_local: FindLocal,
) -> Route:
    """Make the route of a deployment from what its targets lead to now.

    All targets are priced in one currency: the deployment's, or the first, by the alphabet, that
    the first target with a price has one in. A target without a price in it is left out, unless
    none has any price: then all of them are unpriced.
    """
    ways: list[_Way] = []
    unfit: dict[TargetId, Unfit] = {}
    for target in sorted(deployment.targets, key=lambda each: each.priority):
        way = _way(target, things.get(target.to, "not-found"), find_local)
        if isinstance(way, _Way):
            ways.append(way)
        else:
            unfit[target.id] = way
    targets = [way.target for way in ways]
    if any(way.prices for way in ways):
        currency = deployment.currency or _first_currency(ways)
        targets = []
        for way in ways:
            price = way.prices.get(currency)
            if price is None:
                unfit[way.target.id] = NO_PRICE
            else:
                targets.append(replace(way.target, price=price))
    return Route(
        deployment_id=deployment.id,
        tenant_id=deployment.tenant_id,
        name=str(deployment.name),
        revision=deployment.revision,
        targets=targets,
        unfit=unfit,
        limits=RouteLimits(
            max_body_bytes=deployment.max_body_bytes,
            max_output_tokens=deployment.max_output_tokens,
            max_choices=deployment.max_choices,
        ),
        cache_for=_span(deployment.cache_seconds, timedelta(seconds=1)),
        captures=deployment.capture_days is not None,
        keeps_captures=_span(deployment.capture_days, timedelta(days=1)),
    )


def _first_currency(ways: Sequence[_Way]) -> str:
    return min(next(way.prices for way in ways if way.prices))


def _span(count: int | None, unit: timedelta) -> timedelta | None:
    return None if count is None else count * unit


def _way(
    target: Target, thing: SuppliedModel | ServedVersion | Uncallable, find_local: FindLocal
) -> _Way | Unfit:
    if target.status != "active":
        return DISABLED
    if isinstance(thing, SuppliedModel):
        return _supplied(target, thing)
    if isinstance(thing, ServedVersion):
        endpoint = find_local(thing)
        return NO_RUNTIME if endpoint is None else _served(target, thing, endpoint)
    return thing


def _supplied(target: Target, model: SuppliedModel) -> _Way:
    return _Way(
        target=RouteTarget(
            id=target.id,
            priority=target.priority,
            weight=target.weight,
            endpoint=Endpoint(
                protocol=model.protocol,
                reach=model.reach,
                provider_kind=model.kind,
                urls=model.urls,
                model=model.name,
                headers=model.headers,
            ),
            origin=Origin(
                provider_id=model.provider_id,
                provider_name=model.provider_name,
                provider_model_id=model.id,
            ),
            price=None,
            limits=target.limits,
            context_length=model.context_length,
            max_output_tokens=model.max_output_tokens,
        ),
        prices={
            each.prices.currency: TargetPrice(id=each.id, prices=each.prices)
            for each in model.prices
        },
    )


def _served(target: Target, version: ServedVersion, endpoint: Endpoint) -> _Way:
    price, limits = target.price, target.limits
    if limits.first_byte < endpoint.ready_within:
        # Its first call would never be answered, and count as its failure.
        limits = replace(limits, first_byte=endpoint.ready_within)
    return _Way(
        target=RouteTarget(
            id=target.id,
            priority=target.priority,
            weight=target.weight,
            endpoint=endpoint,
            origin=Origin(
                model_id=version.model_id,
                version_id=version.id,
                version=version.version,
                digest=version.digest,
            ),
            price=None,
            limits=limits,
            context_length=version.context_length,
        ),
        prices={} if price is None else {price.currency: TargetPrice(id=None, prices=price)},
    )
