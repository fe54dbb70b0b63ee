"""The rules as a tenant sets them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

from typing_extensions import TypedDict, Unpack

from maas.audit.application.deliveries import Attempt
from maas.audit.domain.rules import RULES, ParameterValue, RuleName, rule_type
from maas.audit.domain.rules_settings import RuleSetting, RuleSettingRepository
from maas.audit.domain.webhooks import Webhook, WebhookRepository
from maas.audit.public import AuditedResource, ChangeValue, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal

RULE = AuditedResource(
    "audit_rule",
    frozenset(
        {
            "is_enabled", "failures", "minutes", "addresses", "hours", "deletions", "roles",
            "time_zone", "since", "until",
        }
    ),
)  # fmt: skip

CheckVersion = Callable[[int], None]


class LoggedWebhookRepository(WebhookRepository, Protocol):
    async def note_test(
        self, webhook: Webhook, delivery_id: UUID, attempt: Attempt, *, at: datetime
    ) -> None:
        """Put a test into the webhook's log."""
        ...


class WatchUnitOfWork(Protocol):
    @property
    def rules(self) -> RuleSettingRepository: ...

    @property
    def webhooks(self) -> LoggedWebhookRepository: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def commit(self, result: object = None) -> None: ...


class RuleChanges(TypedDict, total=False):
    """What may be changed of a rule; what is absent stays."""

    is_enabled: bool
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDetails:
    """A rule as the tenant has it; `updated_at` is null while nobody changed it."""

    name: RuleName
    description: str
    is_enabled: bool
    parameters: Mapping[str, ParameterValue]
    updated_at: datetime | None
    version: int

    @classmethod
    def of(cls, setting: RuleSetting) -> Self:
        # Through the rule, so that a parameter that came later is there as well.
        kept = {**rule_type(setting.rule)().parameters, **setting.parameters}
        return cls(
            name=setting.rule,
            description=rule_type(setting.rule).description,
            is_enabled=setting.is_enabled,
            parameters=kept,
            updated_at=setting.updated_at if setting.version else None,
            version=setting.version,
        )


class RuleQueries(Protocol):
    async def list_rules(self, tenant_id: TenantId) -> Sequence[RuleDetails]:
        """List all rules, by name."""
        ...

    async def get_rule(self, tenant_id: TenantId, name: str) -> RuleDetails:
        """Show one.

        Raises:
            RuleNotFoundError: there is none of this name.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleService:
    unit_of_work: Callable[[], WatchUnitOfWork]
    clock: Clock

    async def revise(
        self,
        principal: Principal,
        name: str,
        *,
        check: CheckVersion,
        **changes: Unpack[RuleChanges],
    ) -> RuleDetails:
        """Set what is given, leave the rest; it holds for events that are judged from now on.

        Raises:
            RuleNotFoundError, InvalidRuleParameterError.
        """
        rule, now = rule_type(name).name, self.clock.now()
        current_scope().resource(RULE, rule)
        async with self.unit_of_work() as uow:
            setting = await uow.rules.find(rule)
            if setting is None:
                setting = RuleSetting.untouched(principal.tenant_id, rule, at=now)
                uow.rules.add(setting)
            check(setting.version)
            before = _trail(setting)
            setting.revise(
                is_enabled=changes.get("is_enabled", setting.is_enabled),
                parameters=changes.get("parameters", {}),
                at=now,
            )
            current_scope().change(RULE, rule, before=before, after=_trail(setting))
            await uow.commit()
        return RuleDetails.of(setting)


def _trail(setting: RuleSetting) -> dict[str, ChangeValue]:
    return {"is_enabled": setting.is_enabled, **setting.parameters}


def defaults(tenant_id: TenantId, *, at: datetime) -> dict[RuleName, RuleSetting]:
    return {name: RuleSetting.untouched(tenant_id, name, at=at) for name in RULES}
