"""Who is calling, and what they may do."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from maas.shared.domain.ids import AccountId, ApiKeyId, SessionId, TenantId

ActorKind: TypeAlias = Literal["account", "service_account", "system", "anonymous"]

PLATFORM_NAMESPACE = "platform"


def covers(granted: frozenset[str], wanted: str) -> bool:
    """Tell whether the granted permissions include the wanted one.

    `wanted` is `<resource>:<action>` without wildcards. A wildcard never reaches the platform
    namespace: only `platform:*` and exact grants do.
    """
    if wanted in granted:
        return True
    resource, _, action = wanted.partition(":")
    if f"{resource}:*" in granted:
        return True
    if resource == PLATFORM_NAMESPACE:
        return False
    return f"*:{action}" in granted or "*:*" in granted


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller, acting in exactly one tenant.

    `session_id` is set for people, `api_key_id` for programs. `version` counts the revocations and
    role changes that the permissions were read after.
    """

    kind: ActorKind
    account_id: AccountId
    tenant_id: TenantId
    username: str
    permissions: frozenset[str]
    version: int
    session_id: SessionId | None = None
    api_key_id: ApiKeyId | None = None

    def may(self, permission: str) -> bool:
        return covers(self.permissions, permission)
