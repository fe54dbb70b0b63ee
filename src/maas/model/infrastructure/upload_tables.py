"""The tables of uploads under way, and of what storage is charged for; triggers: migration 0021.

`file_charges` go with their files, and `upload_holds` with their uploads: triggers then leave a row
in `storage_bookings`, which whoever settles storage takes from there, in the order of `seq`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)

from maas.model.domain.file import FilePath
from maas.model.infrastructure.tables import DigestBytes
from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata


def _payer() -> list[Column[object]]:
    return [
        Column("account_id", Uuid, nullable=False),
        Column("actor_kind", Text, nullable=False),
        Column("api_key_id", Uuid),
    ]


uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    *_payer(),
    Column("kind", Text, nullable=False),
    Column("concat", Text),
    Column("metadata", Text),
    Column("model_id", Uuid),
    Column("version_id", Uuid, ForeignKey("model_versions.id", ondelete="CASCADE")),
    Column("version", Text),
    Column("path", Text),
    Column("media_type", Text),
    Column("sha256", DigestBytes),
    Column("length", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("part_count", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("problem_code", Text),
    Column("problem_detail", Text),
    Column("writer", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("kind IN ('whole', 'partial', 'final')", name="kind"),
    CheckConstraint("(kind = 'partial') = (version_id IS NULL)", name="target"),
    CheckConstraint("state IN ('uploading', 'verifying', 'done', 'failed')", name="state"),
    CheckConstraint("received BETWEEN 0 AND length", name="received"),
    Index("ix_uploads_version_id", "version_id"),
    Index("ix_uploads_expires_at", "expires_at"),
    Index("ix_uploads_tenant_id_account_id", "tenant_id", "account_id"),
    Index("ix_uploads_verifying", "updated_at", postgresql_where=text("state = 'verifying'")),
)
"""`received` bytes are durable; `writer` is whoever may add the next ones."""

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", Uuid, ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("part_sha256", DigestBytes, nullable=False),
)

upload_holds = Table(
    "upload_holds",
    metadata,
    Column("hold_id", Uuid, primary_key=True),
    Column("upload_id", Uuid, ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", Uuid, nullable=False),
    *_payer(),
    Column("size", BigInteger, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("is_settled", Boolean, nullable=False),
    Index("ix_upload_holds_upload_id", "upload_id"),
)

file_charges = Table(
    "file_charges",
    metadata,
    Column("version_id", Uuid, primary_key=True),
    Column("path", ValueText(FilePath), primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    *_payer(),
    Column("size", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["version_id", "path"],
        ["version_files.version_id", "version_files.path"],
        ondelete="CASCADE",
    ),
)
"""Who is charged for a file, and how much; files from before quotas have none."""

storage_bookings = Table(
    "storage_bookings",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("hold_id", Uuid),
    Column("made_at", DateTime(timezone=True), nullable=False),
    *_payer(),
    Column("size", BigInteger, nullable=False),
    CheckConstraint(
        "kind IN ('settle', 'release', 'give_back') AND (kind = 'give_back') = (hold_id IS NULL)",
        name="kind",
    ),
)
