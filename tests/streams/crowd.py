"""Callers, plain and streamed, who hang up now and then, and an upstream that fails as often."""

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import aiohttp
import httpx

from tests.deployed import CALLS
from tests.streams.book import Book, Call
from tests.streams.world import CHUNK_SECONDS, DEPLOYMENTS, MODELS, TOKENS, World
from tests.upstream.process import RunningUpstream
from tests.upstream.scripts import Cut, Script

CROWD: Final = 200
REQUEST_SECONDS: Final = 60.0
KEPT_SECONDS: Final = 2.0
"""The server closes what is idle for 5 s: a request sent right then would not be answered."""

PAUSE_SECONDS: Final = 0.5
"""After a refusal: who is told that nothing is left need not ask at once again."""

LONG: Final = ("river" * 200 + " ") * 1_100
"""Over a mebibyte, of few words."""

DONE: Final = b"[DONE]"
STREAMED, HANGS_UP, LIMITED, IS_LONG, WANTS_USAGE = 0.7, 0.15, 0.65, 0.01, 0.5
"""How many of the calls are of the kind."""

FAULTS_EVERY: Final = 0.4
FAULT_CALLS: Final = 4


class Crowd:
    """So many callers at once, who go on until they are told that it is over."""

    def __init__(self, urls: Sequence[str], world: World, book: Book, *, seed: int) -> None:
        self._urls, self._world, self._book, self._seed = urls, world, book, seed
        self.is_over = False

    async def call(self) -> None:
        connector = aiohttp.TCPConnector(limit=2 * CROWD, keepalive_timeout=KEPT_SECONDS)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(CROWD):
                group.create_task(self._go_on(session, number))

    async def _go_on(self, session: aiohttp.ClientSession, number: int) -> None:
        dice, count = _dice(self._seed, number), 0
        while not self.is_over:
            count += 1
            call, body = _draw(dice, f"call-{self._seed}-{number}-{count}")
            self._book.open(call)
            request = session.post(
                f"{dice.choice(self._urls)}{CALLS}",
                data=json.dumps(body),
                headers={
                    "Authorization": f"Bearer {dice.choice(self._world.keys)}",
                    "Content-Type": "application/json",
                    "X-Request-ID": call.request_id,
                },
            )
            patience = dice.randint(0, TOKENS) if call.hangs_up else None
            # Nobody hears the end of what breaks off, nor of a process that is killed.
            with suppress(aiohttp.ClientError, TimeoutError):
                await _hear(call, request, patience)
            if call.status != httpx.codes.OK:
                await asyncio.sleep(PAUSE_SECONDS * dice.random())


def _dice(seed: int, name: object) -> random.Random:
    return random.Random(f"{seed}/{name}")  # noqa: S311  dice, not a secret


def _draw(dice: random.Random, request_id: str) -> tuple[Call, dict[str, Any]]:
    deployment = dice.choice([*DEPLOYMENTS, "steady", "cheap"])
    is_stream = dice.random() < STREAMED
    content = LONG if dice.random() < IS_LONG else f"What does the river carry, {request_id}?"
    body: dict[str, Any] = {
        "model": deployment,
        "messages": [{"role": "user", "content": content}],
        # By which the upstream's ledger tells what came of which call.
        "user": request_id,
    }
    has_limit = dice.random() < LIMITED
    if has_limit:
        body[dice.choice(["max_tokens", "max_completion_tokens"])] = dice.randint(8, 64)
    if is_stream:
        body["stream"] = True
        if dice.random() < WANTS_USAGE:
            body["stream_options"] = {"include_usage": True}
    call = Call(
        request_id=request_id,
        deployment=deployment,
        is_stream=is_stream,
        body_bytes=len(content),
        has_limit=has_limit,
        hangs_up=dice.random() < HANGS_UP,
    )
    return call, body


async def _hear(call: Call, request: Any, patience: int | None) -> None:
    """Listen to the answer, for so many chunks' time or so many chunks if there is a patience."""
    if patience is not None and not call.is_stream:
        async with asyncio.timeout(patience * CHUNK_SECONDS / 2):
            await _hear_whole(call, request)
    elif not call.is_stream:
        await _hear_whole(call, request)
    else:
        async with request as answer:
            call.status = answer.status
            if answer.status != httpx.codes.OK:
                call.code = _code_of(await answer.read())
                return
            await _listen(call, answer, patience)
            if not call.is_whole:
                answer.close()


async def _hear_whole(call: Call, request: Any) -> None:
    async with request as answer:
        body = await answer.read()
        call.status = answer.status
        if answer.status != httpx.codes.OK:
            call.code = _code_of(body)
            return
        told = json.loads(body)
        call.usage = told.get("usage")
        call.deltas = len(told["choices"][0]["message"]["content"].split())
        call.is_whole = True


async def _listen(call: Call, answer: aiohttp.ClientResponse, patience: int | None) -> None:
    left = b""
    async for piece in answer.content.iter_any():
        *events, left = (left + piece).split(b"\n\n")
        for event in events:
            _note(call, event.removeprefix(b"data: "))
        if patience is not None and call.deltas >= patience:
            return


def _note(call: Call, data: bytes) -> None:
    if data == DONE:
        call.is_whole = True
        return
    told = json.loads(data)
    if "error" in told:
        call.code = f"in the stream: {told['error'].get('code')}"
        return
    call.usage = told.get("usage") or call.usage
    call.deltas += sum(bool(choice["delta"].get("content")) for choice in told["choices"])


def _code_of(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return f"not in OpenAI's form: {body[:100]!r}"


async def sabotage(upstream: RunningUpstream, *, seed: int) -> None:
    """Have a few calls of one model fail, again and again until cancelled."""
    dice = _dice(seed, "faults")
    async with httpx.AsyncClient(base_url=upstream.url, trust_env=False) as client:
        while True:
            await asyncio.sleep(FAULTS_EVERY)
            fault = _draw_fault(dice).model_dump_json()
            await client.put(f"/_script/{dice.choice(MODELS)}", content=fault)


def _draw_fault(dice: random.Random) -> Script:
    times = dice.randint(1, FAULT_CALLS)
    cut: Cut = dice.choice(["close", "reset"])
    after = dice.randint(0, TOKENS)
    match dice.choice(["cut", "cut", "cut", "status", "slow"]):
        case "status":
            return Script(status=dice.choice([500, 503, 429]), retry_after=1, times=times)
        case "slow":
            return Script(head_delay=1, chunk_delay=CHUNK_SECONDS * 2, tokens=TOKENS, times=times)
        case _:
            return Script(
                cut_after=after, cut=cut, chunk_delay=CHUNK_SECONDS, tokens=TOKENS, times=times
            )
