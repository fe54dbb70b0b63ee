"""Who is told how a deployment is doing, and what is told while nobody can count."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest

from maas.inference.application.deployment_metrics import DeploymentMetricsService, RecentCalls
from maas.inference.application.deployment_queries import DeploymentDetails, DeploymentQueries
from maas.inference.application.ports import Routes
from maas.inference.application.target_states import TargetStates
from maas.inference.domain.deployment import DeploymentNotFoundError, Target
from maas.inference.domain.failures import UnknownModelError
from maas.inference.domain.figures import Figures
from maas.inference.domain.route import Route
from maas.inference.interface.deployment_metrics_schemas import DeploymentMetricsRead
from maas.inference.public import DeploymentId, TargetId
from maas.model.public import ProviderModelId
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.principal import Principal
from tests.factories.routes import DEPLOYMENT, make_route, make_target, seeded
from tests.fakes.upstreams import Seconds

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
OWNER, OTHER = TenantId(UUID(int=2)), TenantId(UUID(int=3))

DETAILS = DeploymentDetails(
    id=DEPLOYMENT,
    tenant_id=OWNER,
    name="gemma",
    description=None,
    status="active",
    visibility="public",
    currency=None,
    max_body_bytes=None,
    max_output_tokens=None,
    max_choices=None,
    cache_seconds=None,
    capture_days=None,
    targets=tuple(
        Target(id=TargetId(UUID(int=number)), to=ProviderModelId(UUID(int=9))) for number in (1, 3)
    ),
    created_by=AccountId(UUID(int=5)),
    created_at=NOON,
    updated_at=NOON,
    revision=1,
)


@dataclass
class FakeReads:
    """One deployment that every tenant may call, and its figures."""

    figures: Figures | None
    is_gone: bool = False

    async def get_deployment(
        self,
        caller: Principal,
        deployment_id: DeploymentId,  # noqa: ARG002  the port's
    ) -> DeploymentDetails:
        return DETAILS if caller.tenant_id == OWNER else replace(DETAILS, targets=None)

    async def get_own(self, tenant_id: TenantId, deployment_id: DeploymentId) -> Route:
        assert (tenant_id, deployment_id) == (OWNER, DEPLOYMENT)
        if self.is_gone:
            raise UnknownModelError
        return make_route(make_target(1), unfit={TargetId(UUID(int=3)): "credential-missing"})

    async def find(self, deployment_id: DeploymentId) -> RecentCalls | None:  # noqa: ARG002  likewise
        return None if self.figures is None else RecentCalls(since=NOON, figures=self.figures)


def make_principal(tenant_id: TenantId) -> Principal:
    return Principal(
        kind="account",
        account_id=AccountId(UUID(int=6)),
        tenant_id=tenant_id,
        username="ada",
        permissions=frozenset({"deployment:read"}),
        version=1,
    )


def make_service(figures: Figures | None, *, is_gone: bool = False) -> DeploymentMetricsService:
    reads = FakeReads(figures, is_gone=is_gone)
    states = TargetStates(processes=1, random=seeded(), seconds=Seconds())
    states.of(make_route(make_target(1), make_target(2)))
    return DeploymentMetricsService(
        deployments=cast("DeploymentQueries", reads),
        routes=cast("Routes", reads),
        recent=reads,
        states=states,
    )


async def test_who_may_only_call_it_is_told_nothing() -> None:
    service = make_service(Figures(calls=1))

    with pytest.raises(DeploymentNotFoundError):
        await service.get(make_principal(OTHER), DEPLOYMENT)


async def test_without_redis_its_targets_are_still_told_of() -> None:
    told = DeploymentMetricsRead.of(await make_service(None).get(make_principal(OWNER), DEPLOYMENT))

    assert told.recent is None
    assert [(each.target_id.int, each.circuit) for each in told.targets] == [
        (1, "closed"),
        (3, "closed"),
        (2, "closed"),
    ]


async def test_a_target_that_is_not_called_says_why() -> None:
    found = await make_service(Figures()).get(make_principal(OWNER), DEPLOYMENT)
    told = DeploymentMetricsRead.of(found).targets

    assert {each.target_id.int: each.unfit for each in told} == {
        1: None,
        2: None,
        3: "credential-missing",
    }


async def test_one_that_is_deleted_at_this_moment_is_not_there() -> None:
    with pytest.raises(DeploymentNotFoundError):
        await make_service(Figures(), is_gone=True).get(make_principal(OWNER), DEPLOYMENT)


async def test_a_deployment_nobody_called_yet_has_zeros_and_no_times() -> None:
    found = await make_service(Figures()).get(make_principal(OWNER), DEPLOYMENT)
    told = DeploymentMetricsRead.of(found).recent

    assert told is not None
    assert (told.calls, told.failed_calls, told.costs) == (0, 0, [])
    assert (told.duration.p50_ms, told.first_byte.p95_ms) == (None, None)


async def test_an_amount_past_what_json_s_readers_can_tell_is_a_string() -> None:
    figures = Figures({"calls": 1, "cost:VND": 2**60})

    found = await make_service(figures).get(make_principal(OWNER), DEPLOYMENT)
    told = DeploymentMetricsRead.of(found).recent

    assert told is not None
    assert [each.cost_nanos for each in told.costs] == [str(2**60)]
