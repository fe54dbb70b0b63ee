"""The tables of what was read in files, and of what a tenant lets into its versions."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    Table,
    Text,
    Uuid,
)

from maas.model.domain.file import FilePath
from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata

FACT_COLUMNS = (
    "format",
    "architecture",
    "parameters",
    "dtype",
    "quantisation",
    "context_length",
    "tensor_count",
)
"""What both kinds of facts have, by the names of their fields."""


def _facts() -> list[Column[object]]:
    return [
        Column("format", Text, nullable=False),
        Column("architecture", Text),
        Column("parameters", BigInteger),
        Column("dtype", Text),
        Column("quantisation", Text),
        Column("context_length", BigInteger),
        Column("tensor_count", Integer),
    ]


version_file_facts = Table(
    "version_file_facts",
    metadata,
    Column("version_id", Uuid, primary_key=True),
    Column("path", ValueText(FilePath), primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    *_facts(),
    ForeignKeyConstraint(
        ["version_id", "path"],
        ["version_files.version_id", "version_files.path"],
        ondelete="CASCADE",
    ),
)

version_facts = Table(
    "version_facts",
    metadata,
    Column(
        "version_id", Uuid, ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("tenant_id", Uuid, nullable=False),
    *_facts(),
)

model_settings = Table(
    "model_settings",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("allows_pickle", Boolean, nullable=False),
    Column("updated_by", Uuid, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)
