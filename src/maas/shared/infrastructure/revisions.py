"""Which migrations came with this code: read from their text, without Alembic.

A process that only serves needs to know the newest; to import them all, and what they import, would
cost each such process some ten MiB.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import maas

_IN_WHEEL = Path(maas.__path__[0]) / "_alembic"
_IN_CHECKOUT = Path(maas.__path__[0]).parent.parent / "alembic"

_SAID: Final = re.compile(r'^(revision|down_revision)(?:: \w+)? = "([^"]+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Revisions:
    """What the database may be at: the head, or one of those before it, which are too old."""

    head: str
    older: frozenset[str]


def migrations_folder() -> Path:
    """Find the migrations, in a checkout as in an installed wheel."""
    return _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT


@cache
def known_revisions() -> Revisions:
    """Tell which revision the database must be at for this code to serve.

    Raises:
        RuntimeError: there are none, or more than one is the newest.
    """
    known, before = set[str](), set[str]()
    for path in (migrations_folder() / "versions").glob("*.py"):
        said = dict(_SAID.findall(path.read_text(encoding="utf-8")))
        known.add(said["revision"])
        before.add(said.get("down_revision", ""))
    heads = known - before
    if len(heads) != 1:
        message = f"the migrations of this installation have {len(heads)} heads"
        raise RuntimeError(message)
    return Revisions(heads.pop(), frozenset(before & known))
