"""The tables around signing in: waits, links, mails and invitations.

Only `invitations` has a tenant. `login_throttles` counts guesses; `link_tokens` holds
hashes of links that were mailed; `outgoing_mails` is the outbox of what is to be mailed.
"""

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY

from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry
from maas.user.domain.account import EmailAddress
from maas.user.domain.invitation import Invitation
from maas.user.infrastructure.tables import metadata, sessions

Index("ix_sessions_account_id_address", sessions.c.account_id, sessions.c.address)

login_throttles = Table(
    "login_throttles",
    metadata,
    Column("key", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("pending_until", DateTime(timezone=True), nullable=False),
    Column("blocked_until", DateTime(timezone=True), nullable=False),
    # No index: it would cost each guess more than the purge's scan.
    Column("touched_at", DateTime(timezone=True), nullable=False),
)

link_tokens = Table(
    "link_tokens",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column(
        "account_id",
        Uuid,
        ForeignKey("accounts.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("email", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
)

outgoing_mails = Table(
    "outgoing_mails",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("reference", Uuid),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("due_at", DateTime(timezone=True), nullable=False, index=True),
)
Index(
    "uq_outgoing_mails_kind_recipient",
    outgoing_mails.c.kind,
    func.lower(outgoing_mails.c.recipient),
    outgoing_mails.c.reference,
    unique=True,
    postgresql_nulls_not_distinct=True,
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("email", ValueText(EmailAddress), nullable=False),
    Column("roles", ARRAY(Text), nullable=False),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("mailed_token_hash", LargeBinary, unique=True),
    Column("invited_by", Uuid, nullable=False),
    Column("api_key_id", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("accepted_at", DateTime(timezone=True)),
    Column("accepted_by", Uuid),
    Column("revoked_at", DateTime(timezone=True)),
    Index("ix_invitations_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
)

# The link that was mailed is the sender's alone.
mapper_registry.map_imperatively(
    Invitation, invitations, exclude_properties={invitations.c.mailed_token_hash}
)
