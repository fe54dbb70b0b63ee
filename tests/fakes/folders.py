"""Folders of a few files, as tests want them."""

from collections.abc import Mapping
from pathlib import Path


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Have these files in a folder, made if need be."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def link(place: Path, *, to: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to)


def contents(folder: Path) -> dict[str, bytes]:
    """Give all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
