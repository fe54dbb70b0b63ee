"""Where the migrations lie, in a checkout as in an installed wheel, and which is the newest."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

import maas

_IN_WHEEL = Path(maas.__path__[0]) / "_alembic"
_IN_CHECKOUT = Path(maas.__path__[0]).parent.parent / "alembic"


def migration_config() -> Config:
    """Find the migrations that came with this code."""
    folder = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migration_head() -> str:
    """Tell which revision the database must be at for this code to serve."""
    head = ScriptDirectory.from_config(migration_config()).get_current_head()
    if head is None:
        message = "no migrations came with this installation"
        raise RuntimeError(message)
    return head


def migrate() -> None:
    """Bring the database up to date; the settings come from the environment (alembic/env.py)."""
    command.upgrade(migration_config(), "head")
