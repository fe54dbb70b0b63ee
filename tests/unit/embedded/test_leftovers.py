"""What an earlier run left is found by its session, and nobody else's process is."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import pytest

from maas.embedded import leftovers, sessions
from maas.embedded.folders import DataFolder, locate_data_folder
from maas.embedded.sessions import Session, read_note

pytestmark = pytest.mark.timeout(60)

FORKING = """
import os
os.fork()
os.write(1, b"%d\\n" % os.getpid())
os.read(0, 1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return locate_data_folder(tmp_path)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A leader of a session, and what it forked; neither has a mark."""

    leader: "subprocess.Popen[bytes]"
    forked: int


@pytest.fixture
def family() -> Iterator[Family]:
    with subprocess.Popen(
        [sys.executable, "-c", FORKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        ids = {int(leader.stdout.readline()) for _ in range(2)}
        yield Family(leader=leader, forked=(ids - {leader.pid}).pop())


def found(folder: DataFolder) -> set[int]:
    return {process.pid for process in leftovers.find_spawned(folder)}


def write(folder: DataFolder, session: Session) -> None:
    folder.session_note("api").write_text(json.dumps(asdict(session)))


def test_all_of_a_noted_session_are_found(folder: DataFolder, family: Family) -> None:
    assert found(folder) == set()

    sessions.note(folder.session_note("api"), family.leader.pid)

    assert found(folder) == {family.leader.pid, family.forked}


@pytest.mark.parametrize(
    "differ",
    [
        lambda session: replace(session, began=session.began - 1),
        lambda session: replace(session, boot="another"),
    ],
)
def test_whoever_got_the_id_later_is_none_of_it(
    folder: DataFolder, family: Family, differ: Callable[[Session], Session]
) -> None:
    write(folder, differ(Session.of(family.leader.pid)))

    assert found(folder) == set()


def test_nor_what_a_stranger_left_in_a_session_of_that_id(
    folder: DataFolder, family: Family
) -> None:
    sessions.note(folder.session_note("api"), family.leader.pid)
    family.leader.kill()
    family.leader.wait()

    assert psutil.pid_exists(family.forked)
    assert found(folder) == set()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"leader": 1}'])
def test_a_note_that_tore_names_nobody(folder: DataFolder, content: str) -> None:
    note = folder.session_note("api")
    note.write_text(content)

    assert read_note(note) is None
    assert found(folder) == set()
