"""What a tenant set of a rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from maas.audit.domain.rules import ParameterValue, RuleName, rule_type
from maas.shared.domain.ids import TenantId


@dataclass(eq=False, kw_only=True)
class RuleSetting:
    """A rule as one tenant has it. `version` counts the changes, for ETags; 0 is untouched."""

    tenant_id: TenantId
    rule: RuleName
    is_enabled: bool
    parameters: dict[str, ParameterValue]
    updated_at: datetime
    version: int = 0

    @classmethod
    def untouched(cls, tenant_id: TenantId, rule: RuleName, *, at: datetime) -> Self:
        kind = rule_type(rule)
        return cls(
            tenant_id=tenant_id,
            rule=rule,
            is_enabled=kind.on_by_default,
            parameters=kind().parameters,
            updated_at=at,
        )

    def revise(self, *, is_enabled: bool, parameters: Mapping[str, object], at: datetime) -> None:
        """Set the parameters that are given, leave the rest.

        What was kept and is not taken any more, such as a zone that is gone, can be put right so.

        Raises:
            InvalidRuleParameterError: the rule does not take one of them.
        """
        rule = rule_type(self.rule)()
        kept = {name: self.parameters.get(name, value) for name, value in rule.parameters.items()}
        self.parameters = rule.revised({**kept, **parameters}).parameters
        self.is_enabled = is_enabled
        self.updated_at = at
        self.version += 1


class RuleSettingRepository(Protocol):
    async def find(self, rule: RuleName) -> RuleSetting | None:
        """Load the tenant's setting, locked."""
        ...

    def add(self, setting: RuleSetting) -> None: ...
