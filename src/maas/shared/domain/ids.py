"""Identifiers: UUIDv7 everywhere, so that rows and pages sort by the time of making."""

from typing import NewType
from uuid import UUID

import uuid6

AccountId = NewType("AccountId", UUID)
TenantId = NewType("TenantId", UUID)
SessionId = NewType("SessionId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
ServiceAccountId = NewType("ServiceAccountId", UUID)
EventId = NewType("EventId", UUID)

DEFAULT_TENANT_ID = TenantId(UUID("01900000-0000-7000-8000-000000000001"))
"""The tenant that always exists; its slug is `default`."""


def new_id() -> UUID:
    """Make a UUIDv7: time-ordered, so indexes grow at one end."""
    return UUID(int=uuid6.uuid7().int)
