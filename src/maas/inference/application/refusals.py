"""What is refused before it is sent: counted, and in the trail with what it was about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from maas.audit.public import AuditScope, find_scope
from maas.inference.application.call_facts import CALL, facts_of_call
from maas.inference.application.reports import CallReports
from maas.inference.domain.call import Ask
from maas.inference.domain.deployment import DeploymentName, InvalidDeploymentNameError
from maas.inference.domain.failures import (
    NoTargetError,
    QueueDeadlineError,
    UpstreamUnreachableError,
)
from maas.inference.domain.route import Route
from maas.shared.domain.errors import MaasError
from maas.user.public import Payer

_OUTAGES_ELSEWHERE: Final = (NoTargetError, QueueDeadlineError, UpstreamUnreachableError)
"""Of these it is known that nothing was done, and what keeps the trail is not what is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    reports: Sequence[CallReports]

    def note(self, refusal: MaasError, ask: Ask, payer: Payer, route: Route | None) -> None:
        """Note that a call ends unsent; without a route it is not known where it leads."""
        deployment_id = None if route is None else route.deployment_id
        for each in self.reports:
            each.call_refused(deployment_id, refusal.code)
        scope = find_scope()
        if scope is None:
            return
        if route is None:
            _tell_name(scope, ask.model)
        else:
            scope.change(CALL, deployment_id, after=facts_of_call(ask, route, payer))
        if isinstance(refusal, _OUTAGES_ELSEWHERE):
            scope.refuse(refusal.code)


def _tell_name(scope: AuditScope, name: str) -> None:
    """Tell what was asked for, unless it is no name: then it may be anything, a prompt even."""
    try:
        told = DeploymentName(name)
    except InvalidDeploymentNameError:
        return
    scope.resource_kind, scope.after = CALL.kind, {"name": told.value}
