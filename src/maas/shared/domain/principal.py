"""Who is calling, and what they may do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal, TypeAlias
from uuid import UUID

from maas.shared.domain.ids import AccountId, ApiKeyId, SessionId, TenantId

ActorKind: TypeAlias = Literal["account", "service_account", "system", "anonymous"]

PLATFORM_NAMESPACE = "platform"
ANY = "*"

_BEYOND_WILDCARDS = frozenset({PLATFORM_NAMESPACE})
_BEYOND_WILDCARDS_OF_KEYS = _BEYOND_WILDCARDS | {
    "api_key",
    "role",
    "self",
    "service_account",
    "user",
}
"""What a key manages only if one of its scopes names it: keys, accounts, passwords, and rights."""


def covers(
    granted: frozenset[str], wanted: str, *, beyond: frozenset[str] = _BEYOND_WILDCARDS
) -> bool:
    """Tell whether the granted permissions include the wanted one.

    `wanted` is `<resource>:<action>` without wildcards. A wildcard resource never reaches those
    `beyond`, the platform's own among them: only `platform:*` and exact grants do.
    """
    if wanted in granted:
        return True
    resource, _, action = wanted.partition(":")
    if f"{resource}:*" in granted:
        return True
    if resource in beyond:
        return False
    return f"*:{action}" in granted or "*:*" in granted


def meet(scopes: Sequence[str], rights: Sequence[str]) -> frozenset[str]:
    """Spell what a key may do: what its scopes name and its holder may do.

    A wildcard resource in a scope reaches neither the platform's own nor what manages access,
    whatever the holder may do.
    """
    met = set()
    for scope in scopes:
        for right in rights:
            resource = _meet_resources(scope.partition(":")[0], right.partition(":")[0])
            action = _meet_parts(scope.partition(":")[2], right.partition(":")[2])
            if resource is not None and action is not None:
                met.add(f"{resource}:{action}")
    return frozenset(met)


def named(rights: Iterable[str]) -> frozenset[str]:
    """Tell what of a key's rights it may pass on: what its scopes name, never by a wildcard."""
    return frozenset(right for right in rights if not right.startswith(f"{ANY}:"))


def _meet_parts(first: str, second: str) -> str | None:
    if first in {ANY, second}:
        return second
    return first if second == ANY else None


def _meet_resources(scope: str, right: str) -> str | None:
    if scope == ANY and right in _BEYOND_WILDCARDS_OF_KEYS:
        return None
    if right == ANY and scope == PLATFORM_NAMESPACE:
        return None
    return _meet_parts(scope, right)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What an API key is bound to beside its scopes; `None` binds it to nothing."""

    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None

    def allows_address(self, address: str | None) -> bool:
        if self.networks is None:
            return True
        if address is None:
            return False
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.networks)

    def allows_model(self, name: str) -> bool:
        return self.models is None or name in self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller, acting in exactly one tenant.

    `session_id` is set for people, `api_key_id` for programs. `version` counts the revocations and
    role changes that the permissions were read after. `is_superseded` tells that the key's secret
    is the one of before its last rotation, in its grace.
    """

    kind: ActorKind
    account_id: AccountId
    tenant_id: TenantId
    username: str
    permissions: frozenset[str]
    version: int
    session_id: SessionId | None = None
    api_key_id: ApiKeyId | None = None
    key_limits: KeyLimits | None = None
    is_superseded: bool = False

    @property
    def credential_id(self) -> UUID:
        """Whose a repeated call is: each key's its own, a person's whatever their session."""
        return self.account_id if self.api_key_id is None else self.api_key_id

    def may(self, permission: str) -> bool:
        if self.api_key_id is None:
            return covers(self.permissions, permission)
        return covers(self.permissions, permission, beyond=_BEYOND_WILDCARDS_OF_KEYS)

    @property
    def grantable(self) -> frozenset[str]:
        """What the caller may pass on: a key what its scopes name, and a limited one nothing.

        Whoever received it would not be bound to the key's networks, models and rate.
        """
        if self.api_key_id is None:
            return self.permissions
        return frozenset() if self.key_limits is not None else named(self.permissions)
