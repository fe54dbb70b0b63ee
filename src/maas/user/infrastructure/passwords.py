"""Argon2id in a bounded pool of threads: hashing is the cheapest way to overload a server."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from passlib.hash import argon2

from maas.shared.infrastructure.auth_settings import AuthSettings
from maas.user.application.errors import HashingBusyError

T = TypeVar("T")


class Argon2Hasher:
    def __init__(self, settings: AuthSettings) -> None:
        self._argon2 = argon2.using(  # type: ignore[no-untyped-call]  # the stubs leave it open
            type="ID",
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=1,
        )
        self._threads = ThreadPoolExecutor(
            max_workers=settings.hashing_threads, thread_name_prefix="argon2"
        )
        self._limit = settings.hashing_threads + settings.hashing_queue
        self._under_way = 0
        # What an unknown name is verified against, made with the same parameters.
        self._nobody: str = self._argon2.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        return await self._run(lambda: str(self._argon2.hash(password)))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        compared = password_hash or self._nobody
        is_right = await self._run(lambda: bool(self._argon2.verify(password, compared)))
        return is_right and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        return bool(self._argon2.needs_update(password_hash))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._limit:
            raise HashingBusyError(retry_after=timedelta(seconds=1))
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
