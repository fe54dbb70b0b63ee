"""Callers whose streams are under way while servers stop, and what each of them was told."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from tests.deployed import CALLS
from tests.load.world import MODEL

STOPPED: Final = "server-stopped"
REQUEST_SECONDS: Final = 60.0
SHUN_SECONDS: Final = 0.5
DONE: Final = b"[DONE]"
FINE: Final = frozenset({"whole", "told that the server stops", "turned away", "refused"})
"""Ends a caller can work with: an answer, a clear error, or a connection that was never taken."""


@dataclass(slots=True)
class Told:
    """How calls ended, by request id and in numbers."""

    ends: dict[str, str] = field(default_factory=dict)

    def counts(self) -> Counter[str]:
        return Counter(self.ends.values())

    def unclear(self) -> dict[str, str]:
        return {call: end for call, end in self.ends.items() if end not in FINE}


class Callers:
    """So many callers, who go on until `is_over`; `models` are chosen from at random."""

    def __init__(
        self, urls: Sequence[str], key: str, *, count: int, models: Sequence[str] = (MODEL,)
    ) -> None:
        self._urls, self._key, self._count, self._models = urls, key, count, models
        self._shunned: dict[str, float] = {}
        self.told = Told()
        self.is_over = False

    async def call(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=3)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            # A call that is sent twice is two calls; there is no public switch.
            session._retry_connection = False
            await asyncio.gather(*(self._go_on(session, number) for number in range(self._count)))

    async def _go_on(self, session: aiohttp.ClientSession, number: int) -> None:
        dice = random.Random(number)  # noqa: S311  a choice, not a secret
        count = 0
        while not self.is_over:
            count += 1
            request_id = f"load-{number}-{count}"
            url = self._choose(dice)
            try:
                self.told.ends[request_id] = await self._ask(session, url, request_id, dice)
            except aiohttp.ClientConnectorError:
                self._shunned[url] = time.monotonic() + SHUN_SECONDS
                self.told.ends[request_id] = "refused"
                await asyncio.sleep(0.1)
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                self.told.ends[request_id] = f"no answer: {type(exc).__name__}"

    def _choose(self, dice: random.Random) -> str:
        """As a load balancer does: whoever takes no connections is left alone for a moment."""
        now = time.monotonic()
        good = [url for url in self._urls if self._shunned.get(url, 0.0) < now]
        return dice.choice(good or list(self._urls))

    async def _ask(
        self, session: aiohttp.ClientSession, url: str, request_id: str, dice: random.Random
    ) -> str:
        body = {
            "model": dice.choice(list(self._models)),
            "messages": [{"role": "user", "content": "What does the river carry?"}],
            "user": request_id,
            "stream": True,
        }
        headers = {"Authorization": f"Bearer {self._key}", "X-Request-ID": request_id}
        async with session.post(f"{url}{CALLS}", json=body, headers=headers) as answer:
            if answer.status != 200:
                text = await answer.text()
                if answer.status in {429, 503} and "Retry-After" in answer.headers:
                    return "turned away"
                return f"{answer.status}: {text[:150]}"
            return await _listen(answer)


async def _listen(answer: aiohttp.ClientResponse) -> str:
    last = b""
    try:
        async for piece in answer.content.iter_any():
            last = (last + piece)[-2_000:]
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        return f"broken off: {type(exc).__name__}"
    event = last.rstrip().rpartition(b"data: ")[2]
    if event == DONE:
        return "whole"
    try:
        code = json.loads(event)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return "ended without an end"
    return "told that the server stops" if code == STOPPED else f"error event: {code}"
