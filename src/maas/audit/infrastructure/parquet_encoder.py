"""Writes Parquet in a process of its own: neither its memory nor its time is the server's."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from maas.audit.application.export_tables import ParquetEncoder, ParquetUnavailableError
from maas.audit.domain.export import Header
from maas.audit.domain.export_columns import TableRow

_MODULE: Final = "maas.audit.infrastructure.parquet_child"
# Settings hold secrets, and the child needs none of them.
_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TZDIR")

# With arenas of its own, each of its threads would keep what it once had.
_OWN: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}

_encode: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class ChildEncoder:
    def __init__(self, child: Process) -> None:
        if child.stdin is None or child.stdout is None:
            raise ParquetUnavailableError
        self._child, self._input, self._output = child, child.stdin, child.stdout

    async def begin(self, header: Mapping[str, Any]) -> None:
        await self._send(_encode(header).encode())

    async def add(self, rows: Sequence[TableRow]) -> bytes:
        await self._send(_encode(rows).encode())
        try:
            size = int.from_bytes(await self._output.readexactly(4), "big")
            return await self._output.readexactly(size)
        except asyncio.IncompleteReadError as exc:
            raise ParquetUnavailableError from exc

    async def finish(self) -> bytes:
        self._input.close()
        rest = await self._output.read()
        # Its output ends however it does; an answer that ends too would pass for a whole file.
        if await self._child.wait() != 0:
            raise ParquetUnavailableError
        return rest

    async def _send(self, line: bytes) -> None:
        try:
            self._input.write(line + b"\n")
            await self._input.drain()
        except OSError as exc:
            raise ParquetUnavailableError from exc


@asynccontextmanager
async def open_encoder(header: Header) -> AsyncIterator[ParquetEncoder]:
    """Start the process; at the end of the block it is gone, however that came.

    Raises:
        ParquetUnavailableError: it cannot be started, or died.
    """
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", _MODULE, stdin=PIPE, stdout=PIPE, env={**passed_on, **_OWN}
        )
    except OSError as exc:
        raise ParquetUnavailableError from exc
    try:
        encoder = ChildEncoder(child)
        await encoder.begin(header.to_mapping())
        yield encoder
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
