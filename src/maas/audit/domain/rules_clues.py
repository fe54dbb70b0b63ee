"""What events look like to the rules: failed sign-ins, deletions, grants, acts that change things.

Names and addresses are personal. They are compared here, and go no further than that: a subject
that is shown to anybody is an id.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Self
from uuid import UUID

from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import PLATFORM_NAMESPACE, covers

LONE: Final = "platform"
"""The kind of a subject that is nothing in particular."""

LOGIN: Final = "auth.login"
FAILURES: Final = frozenset({"invalid-credentials", "too-many-logins"})
"""A sign-in with the right password that fails for another reason is no guess."""

GRANTS: Final = frozenset(
    {
        "account.registered",
        "admin.created",
        "tenant.member_put",
        "user.created",
        "user.roles_changed",
    }
)
ROLE_CHANGES: Final = frozenset({"role.created", "role.updated"})
REMOVALS: Final = frozenset({"user.removed", "tenant.member_removed"})
QUOTA_REACHED: Final = "quota.reached"
UNREADABLE: Final = "secret.unreadable"

ADMIN_RIGHTS: Final = ("role:grant", "role:write", "alert:write")
"""Who may do one of these decides over others, or over what is told of them."""

_OWN_AFFAIRS: Final = frozenset(
    {"access", "account", "auth", "inference", "password", "profile", "session", "usage"}
)
_READING: Final = frozenset({"read", "proved", "downloaded", "webhook_tested"})
_PEOPLE: Final = frozenset({"account", "service_account"})
_IPV6_SITE_BITS: Final = 64
_SITES_KNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom or what an alert is about; only a `key` that is an id may be shown."""

    kind: str
    key: str | None
    is_shown: bool = False

    @classmethod
    def account(cls, account_id: UUID) -> Self:
        return cls("account", str(account_id), is_shown=True)

    @property
    def shown_id(self) -> str | None:
        return self.key if self.is_shown else None


@dataclass(frozen=True, slots=True)
class Clue:
    """That an event speaks against a subject; `points_to` is what distinct clues differ in."""

    subject: Subject
    points_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedEvent:
    """What the rules look at of an event; `changes` is read for grants, roles and quotas alone."""

    id: UUID
    tenant_id: TenantId
    at: datetime
    actor_kind: str
    actor_id: UUID | None
    action: str
    resource_kind: str | None
    resource_id: str | None
    outcome: str
    reason: str | None
    actor_name: str | None
    address: str | None
    changes: Mapping[str, Mapping[str, Any]] | None = None
    admin_roles: frozenset[str] = frozenset()
    """Which of the roles that it gives allow what an administrator may, by whatever name."""


@lru_cache(maxsize=_SITES_KNOWN)
def site_of(address: str) -> str:
    """Tell what counts as one address: an IPv4 one itself, an IPv6 one's /64."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_SITE_BITS), strict=False))


def is_failed_login(event: WatchedEvent) -> bool:
    return event.action == LOGIN and event.outcome == "failure" and event.reason in FAILURES


def is_deletion(event: WatchedEvent) -> bool:
    is_one = event.action in REMOVALS or event.action.endswith((".deleted", "_deleted"))
    return is_one and event.outcome == "success"


def share_reached(event: WatchedEvent) -> int | None:
    """Tell how many percent of a quota are used up, if that is what happened."""
    if event.action != QUOTA_REACHED or event.outcome != "success" or event.changes is None:
        return None
    share = event.changes.get("after", {}).get("share")
    return share if isinstance(share, int) else None


def is_changing(event: WatchedEvent) -> bool:
    """Tell whether somebody changed or took away something that is not just their own."""
    first, _, last = event.action.partition(".")
    is_theirs = first in _OWN_AFFAIRS or last in _READING
    return event.actor_kind in _PEOPLE and event.outcome == "success" and not is_theirs


def grants_admin(event: WatchedEvent, roles: frozenset[str]) -> bool:
    """Tell whether somebody gets one of the roles or one like it, or a role becomes like it.

    A list too long for the trail, which keeps only its hash, is taken for the worst.
    """
    if event.outcome != "success" or event.changes is None:
        return False
    before, after = event.changes.get("before", {}), event.changes.get("after", {})
    if event.action in GRANTS:
        gained = _gained(before.get("roles"), after.get("roles"))
        return gained is None or bool(gained & (roles | event.admin_roles))
    if event.action in ROLE_CHANGES:
        gained = _gained(before.get("permissions"), after.get("permissions"))
        return gained is None or is_administrative(gained)
    return False


def roles_given(event: WatchedEvent) -> frozenset[str]:
    """List the roles that somebody is given, as far as the event names them."""
    if event.action not in GRANTS or event.outcome != "success" or event.changes is None:
        return frozenset()
    before, after = event.changes.get("before", {}), event.changes.get("after", {})
    return _gained(before.get("roles"), after.get("roles")) or frozenset()


def _gained(before: object, after: object) -> frozenset[str] | None:
    """List what is new; `None` if that cannot be told."""
    if after is None:
        return frozenset()
    if not isinstance(after, list):
        return None
    return frozenset(after) - frozenset(before if isinstance(before, list) else ())


def is_administrative(permissions: frozenset[str]) -> bool:
    """Tell whether they allow to decide over others, or to run the platform."""
    is_platform = any(each.partition(":")[0] == PLATFORM_NAMESPACE for each in permissions)
    return is_platform or any(covers(permissions, right) for right in ADMIN_RIGHTS)
