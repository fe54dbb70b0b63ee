"""Which of PostgreSQL's programs fits a server, and what it is told of the connection."""

import asyncio
from pathlib import Path

import pytest

from maas.backup import tools
from maas.backup.errors import BackupError
from maas.backup.tools import connection_environment, find_tool

ARGUMENTS = {
    "host": "db.example.com",
    "port": 5432,
    "user": "maas_system",
    "password": "secret",
    "database": "maas",
}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Programs of three releases; those of 18 were built without TLS, as the wheel's are."""
    folders = {major: tmp_path / str(major) for major in (16, 17, 18)}
    for major, folder in folders.items():
        folder.mkdir()
        refusal = "SSL support is not compiled in" if major == 18 else "no such host"
        for name in ("pg_dump", "pg_restore"):
            program = folder / name
            program.write_text(
                f'#!/bin/sh\n[ "$1" = --version ] && echo "{name} (PostgreSQL) {major}.3" ||'
                f' {{ echo "{refusal}" >&2; exit 1; }}\n'
            )
            program.chmod(0o755)
    install(monkeypatch, folders.values())
    return folders


def install(monkeypatch: pytest.MonkeyPatch, folders: object) -> None:
    listed = list(folders)  # type: ignore[call-overload]  # folders in any order
    monkeypatch.setattr(tools, "_candidates", lambda name: [folder / name for folder in listed])


@pytest.mark.parametrize(("server", "found"), [(16, 16), (17, 17), (18, 18)])
@pytest.mark.parametrize("name", ["pg_dump", "pg_restore"])
def test_the_nearest_release_is_taken(
    there: dict[int, Path], name: str, server: int, found: int
) -> None:
    tool = asyncio.run(find_tool(name, server_major=server))

    assert (tool.major, tool.path) == (found, there[found] / name)


def test_a_dump_of_16_is_written_by_16_alone(
    there: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, [there[18]])

    with pytest.raises(BackupError, match="programs of PostgreSQL 16 itself"):
        asyncio.run(find_tool("pg_dump", server_major=16))


def test_a_dump_that_16_cannot_read_is_named(there: dict[int, Path]) -> None:
    assert 18 in there

    with pytest.raises(BackupError, match=r"written by pg_dump 18.*restore into 17 or newer"):
        asyncio.run(find_tool("pg_restore", server_major=16, at_least=18))


def test_tls_is_left_to_programs_that_have_it(
    there: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    secured = {"PGSSLMODE": "verify-full"}

    install(monkeypatch, [there[18]])
    with pytest.raises(BackupError, match="wants TLS"):
        asyncio.run(find_tool("pg_dump", server_major=17, environment=secured))
    install(monkeypatch, there.values())
    tool = asyncio.run(find_tool("pg_dump", server_major=17, environment=secured))

    assert tool.major == 17


def test_tls_is_what_it_is_for_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", "/etc/ca.pem")
    monkeypatch.setenv("PGOPTIONS", "-c role=other")

    said = connection_environment(ARGUMENTS)
    named = connection_environment({**ARGUMENTS, "ssl": "require"})

    assert (said["PGSSLMODE"], said["PGSSLROOTCERT"]) == ("verify-full", "/etc/ca.pem")
    assert named["PGSSLMODE"] == "require"
    assert "PGOPTIONS" not in said
