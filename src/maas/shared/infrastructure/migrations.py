"""Where the migrations lie, in a checkout as in an installed wheel, and which is the newest."""

from dataclasses import dataclass
from functools import cache
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


@dataclass(frozen=True, slots=True)
class Revisions:
    """What the database may be at: the head, or one of those before it, which are too old."""

    head: str
    older: frozenset[str]


@cache
def known_revisions() -> Revisions:
    """Tell which revision the database must be at for this code to serve.

    Read once a process: every migration is a module to be imported.
    """
    scripts = ScriptDirectory.from_config(migration_config())
    head = scripts.get_current_head()
    if head is None:
        message = "no migrations came with this installation"
        raise RuntimeError(message)
    return Revisions(head, frozenset(each.revision for each in scripts.walk_revisions()) - {head})


def migrate() -> None:
    """Bring the database up to date; the settings come from the environment (alembic/env.py)."""
    command.upgrade(migration_config(), "head")
