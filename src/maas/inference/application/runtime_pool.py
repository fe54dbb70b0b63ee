"""Which models are loaded: on demand, within a budget of memory, the least used one makes room."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Final, TypeAlias

import structlog

from maas.inference.application.runtime_ports import (
    Mode,
    ModelProcess,
    ModelProcessDiedError,
    ModelProcesses,
    ModelStart,
    RuntimeBusyError,
    RuntimeMemoryError,
    UnfitWeightsError,
    VersionNotServedError,
    WeightCache,
)
from maas.model.public import VersionId, VersionWeights, WeightFile, Weights
from maas.shared.domain.errors import MaasError

Key: TypeAlias = tuple[VersionId, Mode]

OVERHEAD_BYTES: Final = 64 * 1024**2
"""What a process takes beside its model."""

TOKENS_PER_SIZE: Final = 32_768
"""A token of context takes about this part of the file's size: a model of 4 GiB, 128 KiB."""

LONGEST_WAIT: Final = timedelta(minutes=1)
STEADY: Final = timedelta(minutes=1)
"""A process that lived so long did not die of its start."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """What all models may take together, and how each is run. `idle` of `None` is for ever."""

    memory_bytes: int
    max_models: int
    idle: timedelta | None
    context_length: int
    answers_at_once: int
    threads: int


@dataclass(eq=False, slots=True, kw_only=True)
class _Loaded:
    """A model that is loaded, or about to be. `memory_bytes` counts from when it has its room."""

    key: Key
    name: str = ""
    users: int = 0
    used_at: float
    began_at: float
    memory_bytes: int = 0
    file: WeightFile | None = None
    process: ModelProcess | None = None
    starting: "asyncio.Task[ModelProcess]" = field(init=False)

    @property
    def can_go(self) -> bool:
        return self.users == 0 and self.process is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """Why a model could not run: until then nobody tries again."""

    error: MaasError
    count: int
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What an operator sees of a loaded model."""

    version_id: VersionId
    name: str
    mode: Mode
    memory_bytes: int
    answering: int


class RuntimePool:
    """Gives processes for versions. All of it runs on one event loop, so it needs few locks."""

    def __init__(
        self,
        *,
        weights: VersionWeights,
        cache: WeightCache,
        processes: ModelProcesses,
        limits: PoolLimits,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._weights = weights
        self._cache = cache
        self._processes = processes
        self._limits = limits
        self._now = now
        self._loaded: dict[Key, _Loaded] = {}
        self._faults: dict[Key, _Fault] = {}
        # Whoever makes room must see what the one before took.
        self._making_room = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def using(self, version_id: VersionId, mode: Mode) -> AsyncIterator[ModelProcess]:
        """Give the version's process; it stays loaded for the length of the block.

        Whoever leaves while it loads does not stop it: who comes next finds it further on.

        Raises:
            VersionNotServedError, UnfitWeightsError, BrokenWeightsError: it cannot be run.
            RuntimeMemoryError, RuntimeBusyError, RuntimeStorageFullError: there is no room.
            ModelLoadTimeoutError, UnavailableError: it did not come so far.
        """
        loaded = self._find_or_begin((version_id, mode))
        loaded.users += 1
        try:
            yield await asyncio.shield(loaded.starting)
        finally:
            loaded.users -= 1
            loaded.used_at = self._now()

    def list_loaded(self) -> list[LoadedModel]:
        return [
            LoadedModel(
                version_id=version_id,
                name=loaded.name,
                mode=mode,
                memory_bytes=loaded.memory_bytes,
                answering=loaded.users,
            )
            for (version_id, mode), loaded in self._loaded.items()
            if loaded.process is not None
        ]

    async def unload_idle(self) -> None:
        """End what nobody asked for lately; to be called now and then."""
        now = self._now()
        for key, fault in list(self._faults.items()):
            if now > fault.until + LONGEST_WAIT.total_seconds():
                del self._faults[key]
        if self._limits.idle is None:
            return
        oldest = now - self._limits.idle.total_seconds()
        for loaded in list(self._loaded.values()):
            if loaded.can_go and loaded.used_at <= oldest:
                _log.info("model_unloaded", model=loaded.name, reason="idle")
                await self._unload(loaded)

    async def close(self) -> None:
        """End everything, what is being loaded included."""
        loaded = list(self._loaded.values())
        for each in loaded:
            each.starting.cancel()
        await asyncio.gather(*(each.starting for each in loaded), return_exceptions=True)
        await asyncio.gather(*(self._unload(each) for each in loaded))
        await asyncio.gather(*self._tasks)

    def _find_or_begin(self, key: Key) -> _Loaded:
        loaded = self._loaded.get(key)
        if loaded is not None:
            return loaded
        now = self._now()
        fault = self._faults.get(key)
        if fault is not None and now < fault.until:
            fault.error.retry_after = timedelta(seconds=fault.until - now)
            raise fault.error.with_traceback(None)
        loaded = _Loaded(key=key, used_at=now, began_at=now)
        loaded.starting = asyncio.create_task(self._start(loaded))
        loaded.starting.add_done_callback(lambda task: self._settle(loaded, task))
        self._loaded[key] = loaded
        return loaded

    async def _start(self, loaded: _Loaded) -> ModelProcess:
        version_id, mode = loaded.key
        weights = await self._weights.find(version_id)
        if weights is None:
            raise VersionNotServedError
        loaded.name = f"{weights.model_name}:{weights.version}"
        file = choose_file(weights)
        needed = estimate_memory(file.size, self._limits)
        async with self._making_room:
            await self._make_room(needed)
            loaded.memory_bytes = needed
        path = await self._cache.take(file)
        loaded.file = file
        process = await self._processes.start(
            ModelStart(
                mode=mode,
                path=path,
                name=loaded.name,
                context_length=self._limits.context_length,
                answers_at_once=self._limits.answers_at_once,
                threads=self._limits.threads,
            )
        )
        loaded.process, loaded.used_at = process, self._now()
        seconds = round(self._now() - loaded.began_at, 1)
        _log.info("model_loaded", model=loaded.name, mode=mode, seconds=seconds)
        return process

    def _settle(self, loaded: _Loaded, task: "asyncio.Task[ModelProcess]") -> None:
        """Watch what was started; forget what was not, and remember why."""
        if task.cancelled() or task.exception() is not None:
            self._forget(loaded)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, MaasError):
                self._note_fault(loaded, error)
            elif error is not None:
                _log.error("model_not_loaded", model=loaded.name, exc_info=error)
            return
        watching = asyncio.create_task(self._watch(loaded, task.result()))
        self._tasks.add(watching)
        watching.add_done_callback(self._tasks.discard)

    async def _watch(self, loaded: _Loaded, process: ModelProcess) -> None:
        await process.wait()
        if self._loaded.get(loaded.key) is not loaded:
            return
        self._forget(loaded)
        _log.warning("model_process_died", model=loaded.name, answering=loaded.users)
        if self._now() - loaded.began_at >= STEADY.total_seconds():
            self._faults.pop(loaded.key, None)
        self._note_fault(loaded, ModelProcessDiedError())

    def _note_fault(self, loaded: _Loaded, error: MaasError) -> None:
        if isinstance(error, (VersionNotServedError, RuntimeBusyError)):
            # The next caller may find it otherwise at once.
            return
        before = self._faults.get(loaded.key)
        count = before.count + 1 if before else 1
        # What dies is started again at once; what dies again, or cannot be loaded, waits.
        is_first_death = isinstance(error, ModelProcessDiedError) and count == 1
        wait = 0 if is_first_death else min(LONGEST_WAIT.total_seconds(), 2**count)
        self._faults[loaded.key] = _Fault(error=error, count=count, until=self._now() + wait)

    async def _make_room(self, needed: int) -> None:
        limits = self._limits
        if needed > limits.memory_bytes:
            message = (
                f"The model needs about {_in_mib(needed)} of memory, and the runtime may take "
                f"{_in_mib(limits.memory_bytes)}."
            )
            raise RuntimeMemoryError(message)
        while self._is_full(needed):
            idle = [each for each in self._loaded.values() if each.can_go]
            if not idle:
                raise RuntimeBusyError
            victim = min(idle, key=lambda each: each.used_at)
            _log.info("model_unloaded", model=victim.name, reason="room")
            await self._unload(victim)

    def _is_full(self, needed: int) -> bool:
        held = [each.memory_bytes for each in self._loaded.values() if each.memory_bytes]
        return (
            len(held) >= self._limits.max_models or sum(held) + needed > self._limits.memory_bytes
        )

    async def _unload(self, loaded: _Loaded) -> None:
        self._forget(loaded)
        if loaded.process is not None:
            await loaded.process.stop()

    def _forget(self, loaded: _Loaded) -> None:
        if self._loaded.get(loaded.key) is loaded:
            del self._loaded[loaded.key]
        file, loaded.file = loaded.file, None
        if file is not None:
            self._cache.give_back(file)


def choose_file(weights: Weights) -> WeightFile:
    """Choose the file to load.

    Raises:
        UnfitWeightsError: there is none, or more than one.
    """
    found: Sequence[WeightFile] = [
        file for file in weights.files if PurePosixPath(file.path).suffix.lower() == ".gguf"
    ]
    if len(found) == 1:
        return found[0]
    has = "none" if not found else f"{len(found)}"
    message = f"The runtime runs versions with exactly one GGUF file, and this one has {has}."
    raise UnfitWeightsError(message)


def estimate_memory(file_bytes: int, limits: PoolLimits) -> int:
    """Tell about how much a process takes: its file, what it keeps of each token, and the rest."""
    tokens = limits.context_length * limits.answers_at_once
    return file_bytes + tokens * (file_bytes // TOKENS_PER_SIZE) + OVERHEAD_BYTES


def _in_mib(size: int) -> str:
    return f"{size // 1024**2} MiB"


async def keep_tidy(pool: RuntimePool, *, every: timedelta) -> None:
    """Unload what is idle until cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(every.total_seconds())
            await pool.unload_idle()
