"""What is told of calls that are not sent: to whoever counts, and in the trail."""

from dataclasses import dataclass, field
from uuid import UUID

import pytest

from maas.audit.public import AuditScope, audited, current_scope
from maas.inference.application.bills import TooManyCallsError
from maas.inference.application.refusals import Refusals
from maas.inference.application.reports import CallEnd
from maas.inference.domain.failures import (
    NoTargetError,
    QueueDeadlineError,
    QueueFullError,
    UnknownModelError,
    UpstreamUnreachableError,
)
from maas.inference.domain.route import Route
from maas.inference.public import DeploymentId
from maas.shared.domain.call import serving
from maas.shared.domain.errors import MaasError
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId
from maas.user.public import Payer, QuotaUnavailableError
from tests.factories.calls import DEPLOYMENT, make_ask, make_route
from tests.fakes.recorder import FakeRecorder, make_call

PAYER = Payer(
    tenant_id=DEFAULT_TENANT_ID,
    actor_kind="account",
    account_id=AccountId(UUID(int=5)),
    api_key_id=None,
)


@dataclass
class FakeReports:
    refused: list[tuple[DeploymentId | None, str]] = field(default_factory=list)

    def call_ended(self, end: CallEnd) -> None:
        raise AssertionError(end)

    def call_refused(self, deployment_id: DeploymentId | None, code: str) -> None:
        self.refused.append((deployment_id, code))


async def refused(
    error: MaasError, route: Route | None, *, model: str = "gemma"
) -> tuple[FakeReports, AuditScope, FakeRecorder]:
    """Refuse a call as its route does, and give all that was told."""
    reports, recorder = FakeReports(), FakeRecorder()
    ask = make_ask(model=model)
    scopes: list[AuditScope] = []

    @audited("inference.completed")
    async def serve() -> None:
        scopes.append(current_scope())
        Refusals(reports=[reports]).note(error, ask, PAYER, route)
        raise error

    with serving(make_call(recorder)), pytest.raises(type(error)):
        await serve()
    return reports, scopes[0], recorder


@pytest.mark.parametrize(
    "error",
    [NoTargetError(), QueueDeadlineError(), UpstreamUnreachableError(), QueueFullError()],
    ids=lambda error: error.code,
)
async def test_each_is_counted_and_recorded_with_its_deployment(error: MaasError) -> None:
    reports, scope, recorder = await refused(error, make_route())

    assert reports.refused == [(DEPLOYMENT, error.code)]
    assert recorder.events == [("inference.completed", "failure", error.code)]
    assert (scope.resource_kind, scope.resource_id) == ("deployment", str(DEPLOYMENT))
    assert (scope.after["name"], scope.after["kind"], scope.after["is_stream"]) == (
        "gemma",
        "chat",
        False,
    )


@pytest.mark.parametrize(
    "error", [QuotaUnavailableError(), TooManyCallsError()], ids=lambda error: error.code
)
async def test_what_this_platform_itself_cannot_do_is_counted_alone(error: MaasError) -> None:
    reports, _, recorder = await refused(error, make_route())

    assert reports.refused == [(DEPLOYMENT, error.code)]
    assert recorder.events == []


async def test_of_an_unknown_model_it_is_told_which() -> None:
    reports, scope, recorder = await refused(UnknownModelError(), None, model="acme/bot:7b")

    assert reports.refused == [(None, "unknown-model")]
    assert recorder.events == [("inference.completed", "failure", "unknown-model")]
    assert (scope.resource_kind, scope.resource_id) == ("deployment", None)
    assert scope.after == {"name": "acme/bot:7b"}


async def test_what_is_no_name_is_not_kept() -> None:
    _, scope, _ = await refused(UnknownModelError(), None, model="my PIN is 1234, whose is it?")

    assert (scope.resource_kind, scope.after) == (None, {})


def test_a_call_outside_of_any_scope_is_counted() -> None:
    reports = FakeReports()

    Refusals(reports=[reports]).note(NoTargetError(), make_ask(), PAYER, make_route())

    assert reports.refused == [(DEPLOYMENT, "no-target")]
