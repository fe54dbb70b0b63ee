"""A small registry that breaks lines, and a home and folders for whoever uses it."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from maas.client.board import Board
from tests.fakes.registry import FakeRegistry, serving_registry


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving_registry() as fake:
        yield fake


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def board(said: io.StringIO) -> Board:
    return Board(Console(file=said, width=200))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have no state of whoever runs the tests, and leave none."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    return tmp_path / "home"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Name a folder to pull into, which is not there yet."""
    return tmp_path / "here"
