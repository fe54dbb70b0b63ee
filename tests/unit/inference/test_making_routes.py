"""Making a route: which targets are fit, and in which currency they are priced."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from maas.inference.domain.deployment import Deployment, Target
from maas.inference.domain.route import Endpoint, Route
from maas.inference.domain.routes import FindLocal, make_route
from maas.model.public import (
    CurrentPrice,
    ModelId,
    PriceId,
    ProviderId,
    ProviderModelId,
    ServedVersion,
    SuppliedModel,
    Uncallable,
    VersionId,
    VersionReference,
)
from maas.shared.domain.ids import new_id
from maas.shared.domain.pricing import Price, Prices
from tests.unit.inference.test_deployment import make_deployment, make_target

LOCAL = Endpoint(
    protocol="openai",
    reach="runtime",
    provider_kind=None,
    urls={"chat": "http://127.0.0.1:1/v1/chat/completions"},
    model="gemma",
    headers={},
)


def make_prices(currency: str) -> Prices:
    return Prices(currency=currency, input=Price(Decimal(1)), output=Price(Decimal(2)))


def make_supplied(target: Target, *currencies: str) -> SuppliedModel:
    assert not isinstance(target.to, VersionReference)
    return SuppliedModel(
        id=ProviderModelId(target.to),
        provider_id=ProviderId(new_id()),
        provider_name="OpenAI",
        kind="openai",
        protocol="openai",
        reach="public",
        name="gpt-4o",
        urls={"chat": "https://api.openai.com/v1/chat/completions"},
        headers={"Authorization": "Bearer sk-example"},
        prices=[
            CurrentPrice(id=PriceId(new_id()), prices=make_prices(each)) for each in currencies
        ],
        context_length=128_000,
        max_output_tokens=4_096,
    )


def make_version(reference: VersionReference) -> ServedVersion:
    return ServedVersion(
        model_id=reference.model_id,
        model_name="gemma",
        id=VersionId(new_id()),
        version="1.0",
        digest="ab" * 32,
        framework="gguf",
        context_length=32_768,
    )


def find_local(_: ServedVersion) -> Endpoint | None:
    return LOCAL


def route_of(
    deployment: Deployment,
    *things: SuppliedModel | ServedVersion | Uncallable,
    local: FindLocal = find_local,
) -> Route:
    by_target = dict(zip((target.to for target in deployment.targets), things, strict=True))
    return make_route(deployment, by_target, find_local=local)


def currencies(route: Route) -> list[str | None]:
    return [
        None if target.price is None else target.price.prices.currency for target in route.targets
    ]


class TestTargets:
    def test_come_by_priority_and_then_as_they_were_written(self) -> None:
        targets = tuple(make_target(priority=priority) for priority in (5, 0, 5, 0))
        deployment = make_deployment(targets=targets)

        route = route_of(deployment, *(make_supplied(each, "USD") for each in targets))

        assert [each.id for each in route.targets] == [targets[i].id for i in (1, 3, 0, 2)]

    def test_that_cannot_be_called_are_told_why(self) -> None:
        local = make_target(VersionReference(model_id=ModelId(new_id()), alias="production"))
        off = make_target(status="disabled")
        gone, ready = make_target(), make_target()
        deployment = make_deployment(targets=(local, off, gone, ready))
        assert isinstance(local.to, VersionReference)

        route = route_of(
            deployment,
            make_version(local.to),
            make_supplied(off, "USD"),
            "credential-missing",
            make_supplied(ready, "USD"),
            local=lambda _: None,
        )

        assert [each.id for each in route.targets] == [ready.id]
        assert route.unfit == {
            local.id: "no-runtime",
            off.id: "disabled",
            gone.id: "credential-missing",
        }

    def test_say_where_their_answers_come_from(self) -> None:
        reference = VersionReference(model_id=ModelId(new_id()), version="1.0")
        local, supplied = make_target(reference), make_target()
        deployment = make_deployment(targets=(local, supplied))
        version, model = make_version(reference), make_supplied(supplied)

        route = route_of(deployment, version, model)
        ours, theirs = route.targets

        assert (ours.origin.version_id, ours.origin.digest) == (version.id, version.digest)
        assert (ours.endpoint, ours.context_length) == (LOCAL, 32_768)
        assert theirs.origin.provider_model_id == model.id
        assert theirs.endpoint.model == "gpt-4o"
        assert "sk-example" not in repr(route)

    def test_of_ones_own_have_time_to_be_loaded_before_they_answer(self) -> None:
        reference = VersionReference(model_id=ModelId(new_id()), version="1.0")
        deployment = make_deployment(targets=(make_target(reference),))
        slow = replace(LOCAL, ready_within=timedelta(seconds=180))
        quick = replace(LOCAL, ready_within=timedelta(seconds=10))

        (patient,) = route_of(deployment, make_version(reference), local=lambda _: slow).targets
        (usual,) = route_of(deployment, make_version(reference), local=lambda _: quick).targets

        assert patient.limits.first_byte == timedelta(seconds=180)
        assert usual.limits.first_byte == timedelta(seconds=60)


class TestCurrency:
    def test_is_the_first_that_the_first_target_with_a_price_has(self) -> None:
        targets = tuple(make_target(priority=priority) for priority in (0, 1, 2))
        deployment = make_deployment(targets=targets)

        route = route_of(
            deployment,
            make_supplied(targets[0]),
            make_supplied(targets[1], "USD", "EUR"),
            make_supplied(targets[2], "CNY", "USD"),
        )

        assert currencies(route) == ["EUR"]
        assert route.unfit == dict.fromkeys((targets[0].id, targets[2].id), "no-price-in-currency")

    def test_of_the_deployment_goes_first(self) -> None:
        targets = (make_target(), make_target())
        deployment = make_deployment(targets=targets, currency="USD")

        route = route_of(
            deployment, make_supplied(targets[0], "EUR"), make_supplied(targets[1], "EUR", "USD")
        )

        assert currencies(route) == ["USD"]
        assert route.unfit == {targets[0].id: "no-price-in-currency"}

    def test_is_none_where_no_target_has_a_price(self) -> None:
        targets = (make_target(), make_target())
        deployment = make_deployment(targets=targets, currency="USD")

        route = route_of(deployment, *map(make_supplied, targets))

        assert currencies(route) == [None, None]
        assert route.unfit == {}

    def test_of_a_local_target_is_its_own(self) -> None:
        reference = VersionReference(model_id=ModelId(new_id()), version="1.0")
        deployment = make_deployment(targets=(make_target(reference, price=make_prices("EUR")),))

        route = route_of(deployment, make_version(reference))

        assert currencies(route) == ["EUR"]
        assert route.targets[0].price is not None
        assert route.targets[0].price.id is None


def test_what_a_deployment_allows_is_in_its_route() -> None:
    deployment = make_deployment(
        max_body_bytes=1, max_output_tokens=2, max_choices=3, cache_seconds=60, capture_days=7
    )

    route = route_of(deployment, "not-found")

    assert route.targets == []
    limits = route.limits
    assert (limits.max_body_bytes, limits.max_output_tokens, limits.max_choices) == (1, 2, 3)
    assert route.cache_for == timedelta(minutes=1)
    assert (route.captures, route.keeps_captures) == (True, timedelta(days=7))
