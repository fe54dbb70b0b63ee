import hashlib
import os
from pathlib import Path

import pytest

from maas.client.errors import ClientError
from maas.client.folder import Survey, digest_of, survey


def look(folder: Path, *, with_hidden: bool = False, with_links: bool = False) -> Survey:
    return survey(folder, with_hidden=with_hidden, with_links=with_links)


def names(found: Survey) -> list[str]:
    return [str(file.path) for file in found.files]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot" / "weights").mkdir(parents=True)
    (tmp_path / "bot" / "weights" / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "bot" / "a.json").write_bytes(b"{}")
    return tmp_path / "bot"


def test_the_smallest_comes_first(folder: Path) -> None:
    found = look(folder)

    assert names(found) == ["a.json", "weights/model.gguf"]
    assert found.framework == "gguf"
    assert found.left_out == []


def test_hidden_names_stay_unless_asked_for(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"secret")
    (folder / ".env").write_bytes(b"secret")

    assert names(look(folder)) == ["a.json", "weights/model.gguf"]
    assert look(folder).left_out == [".env", ".git"]
    assert ".git/config" in names(look(folder, with_hidden=True))


def test_a_link_out_of_the_folder_is_followed_only_on_demand(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_ed25519"
    secret.write_bytes(b"secret")
    (folder / "readme").symlink_to(secret)

    with pytest.raises(ClientError, match="readme is a link out of the folder"):
        look(folder)
    assert "readme" in names(look(folder, with_links=True))


def test_a_link_inside_the_folder_is_a_file(folder: Path) -> None:
    (folder / "b.gguf").symlink_to(folder / "weights" / "model.gguf")

    assert "b.gguf" in names(look(folder))


def test_a_link_to_a_folder_is_refused(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)

    with pytest.raises(ClientError, match="loop is a link to a folder"):
        look(folder, with_links=True)


def test_what_is_no_file_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    with pytest.raises(ClientError, match="pipe is not a plain file"):
        look(folder)


@pytest.mark.parametrize("name", ["a\nb", "back\\slash", " blank", "x\u202ey"])
def test_names_that_no_other_disk_takes_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")

    with pytest.raises(ClientError, match="cannot be pushed under this name"):
        look(folder)


def test_two_spellings_of_one_name_are_refused(folder: Path) -> None:
    (folder / "\u00e9t\u00e9").write_bytes(b"1")
    (folder / "e\u0301te\u0301").write_bytes(b"2")

    with pytest.raises(ClientError, match="there twice"):
        look(folder)


def test_an_empty_folder_or_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="no files"):
        look(tmp_path)
    with pytest.raises(ClientError, match="is no folder"):
        look(tmp_path / "nowhere")


def test_a_file_that_changed_is_seen(folder: Path) -> None:
    file = look(folder).files[0]
    file.place.write_bytes(b"other")

    with pytest.raises(ClientError, match=r"a\.json changed meanwhile"):
        file.check_unchanged()


def test_the_digest_is_that_of_all_bytes(folder: Path) -> None:
    (folder / "big").write_bytes(bytes(3_000_000))

    digest = digest_of(folder / "big", lambda: False)

    assert digest == hashlib.sha256(bytes(3_000_000)).hexdigest()
