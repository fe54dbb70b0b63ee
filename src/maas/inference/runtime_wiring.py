"""Builds the runtime host from resources: a process of its own, beside the API."""

import asyncio
import os
from datetime import timedelta
from typing import Final

import psutil

from maas.inference.application.runtime import RuntimeService
from maas.inference.application.runtime_pool import PoolLimits, RuntimePool, keep_tidy
from maas.inference.infrastructure.runtime_cache import FolderWeightCache
from maas.inference.infrastructure.runtime_endpoint import derive_token
from maas.inference.infrastructure.runtime_processes import LlamaProcesses
from maas.inference.interface.runtime_server import RuntimeServer
from maas.model.public import VersionWeights
from maas.shared.infrastructure.runtime_settings import RuntimeSettings
from maas.shared.infrastructure.settings import DEFAULT_DATA_DIR, Settings

FOLDER: Final = "runtime"
LOOK_EVERY: Final = timedelta(seconds=15)


def build_runtime(settings: Settings, *, weights: VersionWeights) -> RuntimeServer:
    """Build the host; nothing is loaded before the first call."""
    wanted = settings.runtime
    cache = FolderWeightCache(
        wanted.cache_dir or (settings.data_dir or DEFAULT_DATA_DIR).absolute() / FOLDER,
        max_bytes=wanted.cache_bytes,
        weights=weights,
    )
    pool = RuntimePool(
        weights=weights,
        cache=cache,
        processes=LlamaProcesses(load_within=timedelta(seconds=wanted.load_seconds)),
        limits=limits_of(wanted),
    )
    tending: list[asyncio.Task[None]] = []

    async def opened() -> None:
        cache.open()
        tending.append(asyncio.create_task(keep_tidy(pool, every=LOOK_EVERY)))

    async def closing() -> None:
        for task in tending:
            task.cancel()
        await pool.close()
        cache.close()

    return RuntimeServer(
        RuntimeService(pool=pool),
        token=derive_token(settings.secret_key.get_secret_value()),
        opened=opened,
        closing=closing,
    )


def limits_of(wanted: RuntimeSettings) -> PoolLimits:
    minutes = wanted.idle_minutes
    return PoolLimits(
        memory_bytes=wanted.memory_bytes or psutil.virtual_memory().total * 2 // 3,
        max_models=wanted.max_models,
        idle=timedelta(minutes=minutes) if minutes else None,
        context_length=wanted.context_length,
        answers_at_once=wanted.answers_at_once,
        # One is left to everything else: a model's threads wait for one another at every step, so
        # one that has to wait for its turn holds up all of them.
        threads=wanted.threads or max(1, (os.cpu_count() or 1) - 1),
    )
