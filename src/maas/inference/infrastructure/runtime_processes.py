"""Processes of models, seen from the runtime host: started, asked, and ended."""

import asyncio
import json
import os
import secrets
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import aiohttp
import structlog

from maas.inference.application.runtime_ports import (
    BrokenWeightsError,
    ModelFacts,
    ModelLoadTimeoutError,
    ModelProcessDiedError,
    ModelStart,
)

COMMAND: Final = (sys.executable, "-P", "-m", "maas.inference.infrastructure.llama_process")

STOP_SECONDS: Final = 3.0
KEPT_LINES: Final = 8

_HANDED_ON: Final = frozenset({"PATH", "HOME", "LANG", "TZ", "EMBEDDED_MAAS_FOLDER"})
_HANDED_ON_PREFIXES: Final = ("LD_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "GGML_", "LLAMA_", "OMP_")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    response: aiohttp.ClientResponse

    @property
    def status(self) -> int:
        return self.response.status

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self.response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as exc:
            raise ModelProcessDiedError from exc


class LlamaProcess:
    """A process whose model is loaded; its key keeps other users of this machine out."""

    def __init__(
        self, process: asyncio.subprocess.Process, *, address: str, key: str, errors: "_Errors"
    ) -> None:
        self._process = process
        self._errors = errors
        self._facts = ModelFacts()
        # A connection for each answer under way; llama.cpp has the queue.
        self._client = aiohttp.ClientSession(
            base_url=address,
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            trust_env=False,
        )

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def pid(self) -> int:
        return self._process.pid

    async def learn(self) -> None:
        """Ask the model what it is.

        Raises:
            ModelProcessDiedError: it does not say.
        """
        try:
            async with self._client.get("/props") as answer:
                props = await answer.json()
            async with self._client.get("/v1/models") as answer:
                models = await answer.json()
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise ModelProcessDiedError from exc
        meta = models["data"][0].get("meta") or {}
        template = props.get("chat_template_caps", {})
        self._facts = ModelFacts(
            embedding_length=meta.get("n_embd"),
            takes_tools=bool(template.get("supports_tools")),
            takes_system=bool(template.get("supports_system_role")),
        )

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[_Answer]:
        try:
            response = await self._client.post(path, data=body)
        except (aiohttp.ClientError, OSError) as exc:
            raise ModelProcessDiedError from exc
        try:
            yield _Answer(response)
        finally:
            # Closed, not given back: an answer that nobody wants is ended by it. After one that was
            # read to its end there is nothing left to close.
            response.close()

    async def wait(self) -> None:
        await self._process.wait()
        await self._client.close()

    async def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._client.close()
        await self._errors.end()


class LlamaProcesses:
    """Starts llama.cpp's server in processes of their own."""

    def __init__(self, *, load_within: timedelta, command: Sequence[str] = COMMAND) -> None:
        self._load_within = load_within
        self._command = command

    async def start(self, wanted: ModelStart) -> LlamaProcess:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            # A signal at the terminal is for the host, which ends its processes in order.
            start_new_session=True,
        )
        errors = _Errors(process)
        try:
            async with asyncio.timeout(self._load_within.total_seconds()):
                return await self._load(process, wanted, errors)
        except TimeoutError:
            message = f"It was not there after {self._load_within.total_seconds():.0f} s."
            await _kill(process, errors)
            raise ModelLoadTimeoutError(message) from None
        except BaseException:
            await _kill(process, errors)
            raise

    async def _load(
        self, process: asyncio.subprocess.Process, wanted: ModelStart, errors: "_Errors"
    ) -> LlamaProcess:
        key = secrets.token_urlsafe(32)
        told = await _tell(process, _spell(wanted, key))
        if not told:
            await process.wait()
            _log.warning("model_not_loaded", path=wanted.path.name, said=await errors.end())
            message = (
                "llama.cpp does not load the version's GGUF file: it is damaged, of a kind this "
                "release does not know, or needs more memory than there is."
            )
            raise BrokenWeightsError(message)
        address = json.loads(told)["address"]
        llama = LlamaProcess(process, address=address, key=key, errors=errors)
        try:
            await llama.learn()
        except BaseException:
            await llama.stop()
            raise
        return llama


class _Errors:
    """Reads what a process writes to its standard error, and keeps the end of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reading = asyncio.create_task(self._read(process.stderr))

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        while stream is not None and (piece := await stream.read(64 * 1024)):
            self._lines.extend(piece.decode("utf-8", "replace").splitlines())

    async def end(self) -> list[str]:
        await self._reading
        return list(self._lines)


async def _tell(process: asyncio.subprocess.Process, wanted: dict[str, Any]) -> bytes:
    """Tell it what to load, and read its answer; empty if it ended."""
    if process.stdin is None or process.stdout is None:
        message = "the process was started without pipes"
        raise RuntimeError(message)
    with suppress(ConnectionError):
        process.stdin.write(json.dumps(wanted).encode() + b"\n")
        await process.stdin.drain()
    return await process.stdout.readline()


async def _kill(process: asyncio.subprocess.Process, errors: _Errors) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    await errors.end()


def _spell(wanted: ModelStart, key: str) -> dict[str, Any]:
    return {
        "parent": os.getpid(),
        "key": key,
        "mode": wanted.mode,
        "path": str(wanted.path),
        "name": wanted.name,
        "context_length": wanted.context_length,
        "answers_at_once": wanted.answers_at_once,
        "threads": wanted.threads,
    }


def _environment() -> dict[str, str]:
    """Hand on what a driver may need, and none of the platform's secrets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _HANDED_ON or name.startswith(_HANDED_ON_PREFIXES)
    }
    return kept | {"PYTHONUNBUFFERED": "1"}
