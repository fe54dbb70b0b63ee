"""Bringing the database up to date, with the migrations that came with this code."""

from alembic import command
from alembic.config import Config

from maas.shared.infrastructure.revisions import migrations_folder


def migration_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate() -> None:
    """Bring the database up to date; the settings come from the environment (alembic/env.py)."""
    command.upgrade(migration_config(), "head")
