"""Where a scenario plays: a cluster, people at work on it, and the book of what they were told."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.cluster import Cluster
from tests.chaos.invariants import watch_liveness
from tests.chaos.load import Book, Client, keep_signed_in, make_clients, open_http
from tests.chaos.programs import Program

CLIENTS = 40
SETTING_UP_SECONDS = 120.0


@dataclass(slots=True)
class Stage:
    """What a scenario may reach."""

    cluster: Cluster
    book: Book
    dice: random.Random
    clients: list[Client]
    http: aiohttp.ClientSession
    faults: int = 0
    dead_letters: int = 0
    excuse_class_b: bool = False
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def fault(self, name: str, *, lasts_at_most: float = 120.0) -> AsyncIterator[None]:
        """Mark the time in which answers may fail."""
        self.faults += 1
        self.book.fault_ends = time.monotonic() + lasts_at_most
        try:
            yield
        finally:
            # What was killed needs as long to come back as a process takes to start.
            await self.cluster.wait_until_well()
            self.book.fault_ends = time.monotonic()
            self.notes.append(name)

    async def with_environment(self, program: Program, **extra: str) -> None:
        """Start a program again with something planted in it, or with nothing."""
        program.environment = {
            **{k: v for k, v in program.environment.items() if not k.startswith("CHAOS_")},
            **extra,
        }
        program.wanted = False
        await asyncio.to_thread(program.stop)
        await asyncio.to_thread(program.start)

    def expect(self, fact: bool, otherwise: str) -> None:  # noqa: FBT001  an assertion that is kept
        if not fact:
            self.findings.append(otherwise)


@asynccontextmanager
async def at_work(
    cluster: Cluster, book: Book, *, seed: int, run: str, clients: int = CLIENTS
) -> AsyncIterator[Stage]:
    """Let people work until the block ends, and watch that what is up says so."""
    is_over = False
    async with open_http() as http:
        book.fault_ends = time.monotonic() + SETTING_UP_SECONDS
        await cluster.wait_until_well()
        people = await make_clients(cluster, http, book, count=clients, run=run, seed=seed)
        book.fault_ends = time.monotonic()
        stage = Stage(cluster, book, random.Random(f"{seed}-{run}"), people, http)  # noqa: S311  a schedule to be repeated

        async def get(url: str) -> int:
            async with http.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                return answer.status

        work = [asyncio.create_task(client.work(lambda: is_over)) for client in people]
        work.append(asyncio.create_task(keep_signed_in(people, lambda: is_over)))
        watch = asyncio.create_task(watch_liveness(cluster, book, get, lambda: is_over))
        try:
            yield stage
        finally:
            is_over = True
            cluster.heal()
            await asyncio.gather(*work, watch)


Environment = Mapping[str, Mapping[str, str]]
