"""PostgreSQL's own programs: which of them fit a server, and how they are run."""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from maas.backup.errors import BackupError
from maas.embedded.errors import BinaryNotFoundError
from maas.embedded.locator import find_postgres_binaries

# From 17 on they set `transaction_timeout`, which 16 does not know.
_STRICT_MAJOR: Final = 16
_ASK_SECONDS: Final = 10
_KILL_SECONDS: Final = 5
_LOOK_SECONDS: Final = 0.2
_QUOTED_LINES: Final = 6
_TLS_MODES: Final = ("require", "verify-ca", "verify-full")
_FULL: Final = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class Tool:
    path: Path
    major: int


async def find_tool(
    name: str,
    *,
    server_major: int | None,
    at_least: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Tool:
    """Find `pg_dump` or `pg_restore` for a server: of its own release, else of a newer one.

    Looks at MAAS_PG_BIN, at the wheel, then at PATH. `at_least` is what wrote the dump; without a
    server nothing else counts. `environment` leads to the server: where it wants TLS, so must the
    program.

    Raises:
        BackupError: there is none that fits; says which ones were found.
    """
    is_strict = server_major == _STRICT_MAJOR
    if is_strict and at_least > _STRICT_MAJOR:
        raise BackupError(
            f"the dump was written by pg_dump {at_least}, which no pg_restore for PostgreSQL "
            f"{_STRICT_MAJOR} reads: restore into {_STRICT_MAJOR + 1} or newer"
        )
    found = [tool for path in _candidates(name) if (tool := await _ask(path)) is not None]
    oldest = max(server_major or 0, at_least)
    fitting = [tool for tool in found if tool.major >= oldest]
    if is_strict:
        # What a newer one writes could not be restored into this release either.
        fitting = [tool for tool in fitting if tool.major == _STRICT_MAJOR]
    if fitting and (mode := (environment or {}).get("PGSSLMODE")) in _TLS_MODES:
        secured = [tool for tool in fitting if await _knows_tls(tool)]
        if not secured:
            raise BackupError(
                f"the connection wants TLS ({mode}), which {fitting[0].path} was built without: "
                f"install the client programs of PostgreSQL {oldest}, or name their folder in "
                "MAAS_PG_BIN"
            )
        fitting = secured
    if not fitting:
        had = ", ".join(f"{tool.major} ({tool.path})" for tool in found) or "none"
        raise BackupError(
            f"no {name} here fits PostgreSQL {server_major or oldest} (found: {had}): install the "
            f"client programs of PostgreSQL {oldest}{' itself' if is_strict else ''}, or name "
            "their folder in MAAS_PG_BIN"
        )
    return min(fitting, key=lambda tool: tool.major)


def _candidates(name: str) -> list[Path]:
    folders = [os.environ.get("MAAS_PG_BIN"), *_wheel(), *os.get_exec_path()]
    paths = (Path(folder).absolute() / name for folder in folders if folder)
    return [path for path in paths if path.is_file() and os.access(path, os.X_OK)]


def _wheel() -> list[str]:
    with suppress(BinaryNotFoundError):
        return [str(find_postgres_binaries())]
    return []


async def _ask(path: Path) -> Tool | None:
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        said, _ = await asyncio.wait_for(process.communicate(), _ASK_SECONDS)
    except (OSError, TimeoutError):
        return None
    number = re.search(rb"(\d+)(?:\.\d+)*", said)
    return Tool(path, int(number[1])) if number and process.returncode == 0 else None


async def _knows_tls(tool: Tool) -> bool:
    """Tell whether the program's library has TLS: only pg_dump says so before it connects."""
    process = await asyncio.create_subprocess_exec(
        *(tool.path.with_name("pg_dump"), "--no-password", "--dbname=host=/nowhere-at-all"),
        env={"PGSSLMODE": "require"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return b"SSL support is not compiled in" not in said


def connection_environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Spell arguments of asyncpg as libpq's variables: a password is on no command line so."""
    named = {
        "PGHOST": arguments["host"],
        "PGPORT": arguments["port"],
        "PGUSER": arguments["user"],
        "PGPASSWORD": arguments["password"],
        "PGDATABASE": arguments["database"],
        "PGSSLMODE": arguments.get("ssl"),
        "PGCONNECT_TIMEOUT": 10,
        "PGAPPNAME": "maas-backup",
    }
    # asyncpg takes what it is not told of TLS from the same variables.
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("PG") or name.startswith("PGSSL")
    }
    return kept | {name: str(value) for name, value in named.items() if value is not None}


def role_arguments(arguments: Mapping[str, Any]) -> list[str]:
    role = arguments["server_settings"].get("role")
    return [] if role is None else [f"--role={role}"]


async def run_tool(
    command: Sequence[object],
    *,
    environment: Mapping[str, str],
    pulse: Callable[[], None] = lambda: None,
) -> str:
    """Run a program to its end and return what it printed; it ends with whoever waits for it.

    Raises:
        BackupError: it failed; quotes the last of what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *(str(part) for part in command),
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Ctrl-C is ours to pass on: what it wrote is cleared away only once it is gone.
        start_new_session=True,
    )
    ending = asyncio.create_task(process.communicate())
    try:
        while not (await asyncio.wait({ending}, timeout=_LOOK_SECONDS))[0]:
            pulse()
        output, complaints = ending.result()
    finally:
        await _end(process)
        ending.cancel()
    if process.returncode != 0:
        raise BackupError(_explain(Path(str(command[0])).name, complaints.decode(errors="replace")))
    return output.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    for signal_it in (process.terminate, process.kill):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            signal_it()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_SECONDS)


def _explain(name: str, complaints: str) -> str:
    lines = [line for line in complaints.strip().splitlines() if line.strip()]
    said = "\n".join(f"  {line}" for line in lines[-_QUOTED_LINES:])
    if any(phrase in complaints for phrase in _FULL):
        return f"the disk is full. {name} said:\n{said}"
    return f"{name} failed. It said:\n{said}"


def folder_bytes(folder: Path) -> int:
    """Tell how much was written so far, or nothing yet."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        total = sum(entry.stat().st_size for entry in entries if entry.is_file())
    return total


def discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
