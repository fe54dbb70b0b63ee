from pathlib import Path

import pytest

from maas.client.folder import LocalFile, survey
from maas.client.push_state import PushState, open_push_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "model").write_bytes(b"1")
    return tmp_path / "bot"


def look(folder: Path) -> LocalFile:
    return survey(folder, with_hidden=False, with_links=False).files[0]


def open_state(folder: Path, *, url: str = "http://a") -> PushState:
    home = {"XDG_STATE_HOME": str(folder.parent / "state")}
    return open_push_state(url=url, model="1", folder=folder, environment=home)


def test_a_push_is_remembered_by_folder_and_address(folder: Path) -> None:
    state, file = open_state(folder), look(folder)
    state.begin("1.0.0")
    state.keep_digest(file, "ab")
    state.keep_upload("model", "ab", "http://a/uploads/1")

    again, elsewhere = open_state(folder), open_state(folder, url="http://b")

    assert again.version == "1.0.0"
    assert again.find_digest(file) == "ab"
    assert list(again.list_uploads()) == ["model"]
    assert (elsewhere.version, elsewhere.list_uploads()) == (None, {})


def test_another_version_has_no_uploads_yet(folder: Path) -> None:
    state = open_state(folder)
    state.begin("1.0.0")
    state.keep_upload("model", "ab", "http://a/uploads/1")

    state.begin("1.0.1")

    assert open_state(folder).list_uploads() == {}


def test_a_digest_is_of_the_file_as_it_was(folder: Path) -> None:
    state = open_state(folder)
    state.keep_digest(look(folder), "ab")
    (folder / "model").write_bytes(b"22")

    assert state.find_digest(look(folder)) is None


def test_nothing_is_left_at_the_end(folder: Path) -> None:
    state = open_state(folder)
    state.begin("1.0.0")
    state.end()

    assert [each for each in (folder.parent / "state").rglob("*") if each.is_file()] == []


def test_what_cannot_be_read_or_kept_is_not_missed(folder: Path) -> None:
    (folder.parent / "state").write_bytes(b"a file where a folder should be")
    state = open_state(folder)

    state.begin("1.0.0")

    assert state.version == "1.0.0"
    state.end()
