"""Bringing the database up to date, with the migrations that came with this code."""

from typing import Final

from alembic import command
from alembic.config import Config

from maas.shared.infrastructure.revisions import migrations_folder

VERSION_TABLE: Final = "alembic_version"
RESTORING_TABLE: Final = "alembic_version_restoring"
"""Is there as long as a restore is under way, and has its revision; the other has no row then."""


class RestoreBrokeOffError(RuntimeError):
    """The database holds what a restore left that never came to its end."""

    def __init__(self) -> None:
        super().__init__(
            "a restore broke off in this database, or is under way: what is there is no whole "
            "platform. Drop the database, create it anew, and restore again"
        )


def migration_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(*, version_table: str = VERSION_TABLE) -> None:
    """Bring the database up to date; the settings come from the environment (alembic/env.py).

    Raises:
        RestoreBrokeOffError: what is there was not restored to its end.
    """
    config = migration_config()
    config.attributes["version_table"] = version_table
    command.upgrade(config, "head")
