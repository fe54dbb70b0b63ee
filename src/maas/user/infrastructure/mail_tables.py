"""The mails that could not be delivered: who was to have which, and why it failed.

Without a tenant, like `outgoing_mails`, which they come from. They are kept for a month.
"""

from sqlalchemy import Column, DateTime, Integer, Table, Text, Uuid

from maas.user.infrastructure.tables import metadata

undelivered_mails = Table(
    "undelivered_mails",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("failed_at", DateTime(timezone=True), nullable=False, index=True),
)
