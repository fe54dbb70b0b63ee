"""The tables of aliases and of their moves.

An alias that was deleted keeps its row and points nowhere, so that its moves stay in one sequence.
Nobody who serves requests may change or delete a move.
"""

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Uuid,
)

from maas.model.domain.alias import Alias, AliasMove, AliasName
from maas.model.domain.text import Reason, VersionName
from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("model_id", Uuid, ForeignKey("models.id"), primary_key=True),
    Column("name", ValueText(AliasName), primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("version_id", Uuid, ForeignKey("model_versions.id")),
    Column("version", ValueText(VersionName)),
    Column("reason", ValueText(Reason)),
    Column("sequence", Integer, nullable=False),
    Column("moved_by", Uuid),
    Column("moved_at", DateTime(timezone=True)),
    Index("ix_model_aliases_version_id", "version_id"),
)

model_alias_moves = Table(
    "model_alias_moves",
    metadata,
    Column("model_id", Uuid, primary_key=True),
    Column("alias", ValueText(AliasName), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("version_id", Uuid),
    Column("version", ValueText(VersionName)),
    Column("previous_version", ValueText(VersionName)),
    Column("reason", ValueText(Reason)),
    Column("moved_by", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    ForeignKeyConstraint(
        ["model_id", "alias"], ["model_aliases.model_id", "model_aliases.name"], ondelete="CASCADE"
    ),
    Index("uq_model_alias_moves_model_id_alias_at", "model_id", "alias", "at", unique=True),
)

mapper_registry.map_imperatively(Alias, model_aliases, eager_defaults=False)
mapper_registry.map_imperatively(AliasMove, model_alias_moves, eager_defaults=False)
