"""A process of callers, as many at once, each of whom writes down what it asked and was told.

It is started with its number, and again with the same one when it was killed. What it reads from
its folder: `world.json`, how big the world is; `calm`, when there is one, ends the mischief and
tells how many of the tenants are still worked on; `over` ends it.
"""

import asyncio
import json
import os
import random
import secrets
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import uvloop

from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.logging import configure_logging
from maas.shared.infrastructure.settings import load_settings
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.public import (
    Amounts,
    BudgetExceededError,
    Budgets,
    Hold,
    Payer,
    QuotaExceededError,
    QuotaUnavailableError,
    UsageFigures,
)
from tests.quota.book import Pen
from tests.quota.world import CURRENCY, MOST_TOKENS, NANOS_A_TOKEN, Tenant, make_world, price

LOOK_SECONDS: Final = 0.1
REFUSALS: Final = 3
"""After so many in a row a caller asks for another key."""

PAUSE_SECONDS: Final = 0.02
LONGEST_WORK_SECONDS: Final = 0.05


@dataclass(slots=True)
class Signs:
    """What the folder says, read by one and asked by all."""

    folder: Path
    tenants: int | None = None
    is_over: bool = False

    @property
    def is_calm(self) -> bool:
        return self.tenants is not None

    async def watch(self) -> None:
        while not self.is_over:
            if self.tenants is None and (self.folder / "calm").exists():
                self.tenants = int((self.folder / "calm").read_text())
            self.is_over = (self.folder / "over").exists()
            await asyncio.sleep(LOOK_SECONDS)


@dataclass(slots=True, kw_only=True)
class Caller:
    """One of many; makes calls with every key of a tenant, and then those of the next."""

    name: str
    budgets: Budgets
    pen: Pen
    world: list[Tenant]
    signs: Signs
    lease: timedelta
    dice: random.Random
    calls: int = 0

    async def work(self) -> None:
        """Call until it is over; nothing but what the port says may be raised."""
        # Most ask for the same key, which runs out before its account does, and that before the
        # tenant.
        turn = self.dice.choice((0, 0, 0, 1, 2, 3))
        while not self.signs.is_over:
            for tenant in self.world[: self.signs.tenants]:
                for number in range(len(tenant.payers)):
                    await self._use_up(tenant.payers[(turn + number) % len(tenant.payers)])

    async def _use_up(self, payer: Payer) -> None:
        refusals = 0
        while refusals < REFUSALS and not self.signs.is_over:
            try:
                await self._call(payer)
            except (QuotaExceededError, BudgetExceededError):
                refusals += 1
                await asyncio.sleep(PAUSE_SECONDS)
            except QuotaUnavailableError:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                refusals = 0

    async def _call(self, payer: Payer) -> None:
        self.calls += 1
        request_id = f"{self.name}-{self.calls}"
        tokens = self.dice.randint(MOST_TOKENS // 2, MOST_TOKENS)
        wanted = price(tokens)
        least = price(tokens // 4) if self.dice.random() < 0.5 else None
        self.pen.note(
            "ask",
            request_id,
            payer=str(payer.api_key_id),
            wanted=_pair(wanted),
            least=_pair(least or wanted),
        )
        try:
            hold = await self._reserve(payer, wanted, least, request_id)
        except (QuotaExceededError, BudgetExceededError):
            self.pen.note("refused", request_id)
            raise
        except QuotaUnavailableError:
            self.pen.note("unavailable", request_id)
            raise
        except TimeoutError:
            self.pen.note("left", request_id)
            return
        self.pen.note(
            "granted",
            request_id,
            hold=str(hold.id),
            amounts=_pair(hold.granted),
            lease_until=hold.lease_until.timestamp(),
        )
        await self._use(hold, request_id)

    async def _reserve(
        self, payer: Payer, wanted: Amounts, least: Amounts | None, request_id: str
    ) -> Hold:
        # Some hang up while they wait.
        patience = self.dice.uniform(0, 0.03) if self._happens(0.02) else None
        async with asyncio.timeout(patience):
            return await self.budgets.reserve(
                payer,
                wanted,
                least=least,
                lease=self.lease,
                model="gemma",
                request_id=request_id,
            )

    async def _use(self, hold: Hold, request_id: str) -> None:
        await asyncio.sleep(self.dice.uniform(0, LONGEST_WORK_SECONDS))
        granted = hold.granted.tokens
        done = 0
        if self._happens(0.2):
            done = self.dice.randint(1, granted)
            await self._progress(hold, request_id, done)
        if self._happens(0.02):
            # The caller is gone, and nobody settles: its lease ends it.
            return
        if self._happens(0.05):
            self.pen.note("release", request_id)
            await self.budgets.release(hold)
            self.pen.note("told", request_id)
            return
        await self._settle(hold, request_id, self.dice.randint(max(done, granted // 2), granted))

    async def _progress(self, hold: Hold, request_id: str, tokens: int) -> None:
        self.pen.note("progress", request_id, amounts=_pair(price(tokens)))
        await self.budgets.progress(hold, price(tokens))
        self.pen.note("progressed", request_id)

    async def _settle(self, hold: Hold, request_id: str, tokens: int) -> None:
        output = tokens // 3
        used = UsageFigures(
            input_tokens=tokens - output - output // 2,
            cached_tokens=tokens // 10,
            output_tokens=output,
            reasoning_tokens=output // 2,
            cost_nanos=min(tokens * NANOS_A_TOKEN, hold.granted.cost_nanos),
            currency=CURRENCY,
            provider="upstream",
        )
        self.pen.note("settle", request_id, amounts=[used.tokens, used.cost_nanos])
        await self.budgets.settle(hold, used)
        self.pen.note("told", request_id)
        if self._happens(0.05):
            # Delivered again: it was booked, and is not booked twice.
            await self.budgets.settle(hold, used)

    def _happens(self, odds: float) -> bool:
        return not self.signs.is_calm and self.dice.random() < odds


def _pair(amounts: Amounts) -> list[int]:
    return [amounts.tokens, amounts.cost_nanos]


async def main(folder: Path, number: int) -> None:
    settings = load_settings()
    configure_logging(level="INFO", format="json")
    plan = json.loads((folder / "world.json").read_text())
    world = make_world(plan["seed"], tenants=plan["tenants"], holds=plan["holds"])
    life = secrets.token_hex(4)
    signs = Signs(folder)
    database = Database(settings.database)
    await database.open()
    budgets = PostgresBudgets(database)
    with Pen(folder / f"book-{number}-{life}.ndjson") as pen:
        callers = [
            Caller(
                name=f"{number}-{life}-{each}",
                budgets=budgets,
                pen=pen,
                world=world,
                signs=signs,
                lease=timedelta(seconds=plan["lease_seconds"]),
                dice=random.Random(f"{plan['seed']}-{number}-{each}"),  # noqa: S311  load to be repeated
            )
            for each in range(plan["callers"])
        ]
        (folder / f"ready-{number}").write_text(str(os.getpid()))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(signs.watch())
            for caller in callers:
                tasks.create_task(caller.work())
    await budgets.close()
    await database.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2])))
