"""Accounts and sessions that state only what a test is about."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, SessionId, new_id
from maas.user.domain.account import Account, DisplayName, EmailAddress, Username
from maas.user.domain.role import Role, RoleName
from maas.user.domain.session import Session

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PASSWORD = "correct horse battery staple"


def make_account(**overrides: Any) -> Account:
    values: dict[str, Any] = {
        "id": AccountId(new_id()),
        "username": Username("ada"),
        "email": EmailAddress("ada@example.com"),
        "display_name": DisplayName("Ada Lovelace"),
        "password_hash": "hash",
        "password_change_required": False,
        "status": "active",
        "home_tenant_id": DEFAULT_TENANT_ID,
        "last_tenant_id": None,
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Account(**{**values, **overrides})


def make_session(**overrides: Any) -> Session:
    values: dict[str, Any] = {
        "id": SessionId(new_id()),
        "account_id": AccountId(new_id()),
        "tenant_id": DEFAULT_TENANT_ID,
        "version": 1,
        "generation": 1,
        "current_hash": b"current",
        "previous_hash": None,
        "rotated_at": NOON,
        "created_at": NOON,
        "last_used_at": NOON,
        "expires_at": NOON + timedelta(days=30),
        "idle_expires_at": NOON + timedelta(days=7),
        "revoked_at": None,
        "revoked_reason": None,
        "address": None,
        "user_agent": None,
    }
    return Session(**{**values, **overrides})


def make_role(*, name: str, permissions: Collection[str], is_protected: bool = False) -> Role:
    return Role(
        tenant_id=DEFAULT_TENANT_ID,
        name=RoleName(name),
        description=None,
        permissions=sorted(permissions),
        is_protected=is_protected,
        created_at=NOON,
        updated_at=NOON,
    )
