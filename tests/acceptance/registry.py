"""What the registry must answer rightly: which version an alias named at any time, after a storm.

Two real API processes move one alias at once, each time to another version, while others read it.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from maas.shared.infrastructure.clock import SystemClock
from tests.acceptance import speed
from tests.acceptance.revocation import pair_of_its_own
from tests.acceptance.verdict import Finding, Verdict, all_of
from tests.pair import WITHOUT_LIMITS, Pair
from tests.stage import MODELS, Stage, staged

MOVES: Final = 100
READERS, READS = 8, 25
AT_ONCE: Final = 16
TRIES, PAUSE_SECONDS = 60, 0.5
ALIAS: Final = "production"
TICK: Final = timedelta(microseconds=1)
CLOCK_SECONDS: Final = 0.001
"""The times compared are one machine's, told with microseconds by one and rounded by the other."""

T = TypeVar("T")
R = TypeVar("R")


def stands_beside_mlflow(_folder: Path) -> Verdict:
    return speed.judge("--only", "registry")


def tells_any_moment(_folder: Path) -> Verdict:
    with pair_of_its_own(WITHOUT_LIMITS) as pair:
        findings = asyncio.run(_move_and_ask(pair))
        dead = pair.dead()
    return all_of(*findings, (not dead, "both processes live"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A request and its answer; `sent` and `answered` are seconds on the machine's clock."""

    sent: float
    answered: float
    status: int
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    sequence: int
    version: str | None
    previous: str | None
    at: datetime

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Move":
        return cls(
            sequence=told["sequence"],
            version=told["version"],
            previous=told["previous_version"],
            at=datetime.fromisoformat(told["at"]),
        )


@dataclass(slots=True)
class Storm:
    """What was asked and answered while the alias moved."""

    moves: list[Done] = field(default_factory=list)
    reads: list[Done] = field(default_factory=list)
    refused: int = 0


async def _move_and_ask(pair: Pair) -> list[Finding]:
    async with staged(pair) as stage:
        model = await stage.post(MODELS, {"name": "acme/storm", "framework": "other"})
        path = f"{MODELS}/{model['id']}"
        versions = [f"1.0.{number}" for number in range(MOVES)]
        await _at_most(AT_ONCE, lambda version: _make_ready(stage, path, version), versions)
        alias = f"{path}/aliases/{ALIAS}"
        storm = await _blow(stage, alias, versions)
        moves = await _history(stage, alias)
        wrong, asked = await _ask_for_moments(stage, alias, moves)
        gone = await _delete(stage, alias)
    return [
        *_judge_moves(storm, moves),
        (not wrong and asked > MOVES, f"{asked - wrong} of {asked} moments told rightly"),
        _judge_reads(storm, moves),
        (gone, "deleting it is a move to nothing"),
    ]


def _judge_moves(storm: Storm, moves: Sequence[Move]) -> list[Finding]:
    statuses = Counter(done.status for done in storm.moves)
    acknowledged = {done.version: done for done in storm.moves if done.status < 300}
    told = {move.version: move for move in moves}
    at_their_time = sum(
        done.sent - CLOCK_SECONDS <= told[version].at.timestamp() <= done.answered + CLOCK_SECONDS
        for version, done in acknowledged.items()
        if version in told
    )
    pairs = list(itertools.pairwise(moves))
    return [
        (
            len(acknowledged) == MOVES,
            f"{MOVES} moves at once answered {dict(statuses)}, {storm.refused} told to come again",
        ),
        (told.keys() == acknowledged.keys(), f"{len(moves)} in the history"),
        ([move.sequence for move in moves] == list(range(1, len(moves) + 1)), "no gap"),
        (all(one.at < next_.at for one, next_ in pairs), "no two at one time"),
        (
            moves[0].previous is None
            and all(one.version == next_.previous for one, next_ in pairs),
            "each from where the one before led",
        ),
        (at_their_time == len(acknowledged), f"{at_their_time} between request and answer"),
    ]


def _judge_reads(storm: Storm, moves: Sequence[Move]) -> Finding:
    """Find reads of a version that had not come yet, or whose successor was acknowledged before."""
    began = {move.version: move.at.timestamp() for move in moves}
    next_of = {one.version: next_.version for one, next_ in itertools.pairwise(moves)}
    answered = {done.version: done.answered for done in storm.moves}
    strange = 0
    for read in storm.reads:
        if read.version not in began:
            strange += 1
            continue
        successor = next_of.get(read.version)
        is_too_early = read.answered + CLOCK_SECONDS < began[read.version]
        is_too_late = successor is not None and answered[successor] + CLOCK_SECONDS < read.sent
        strange += is_too_early or is_too_late
    return (
        len(storm.reads) >= MOVES and not strange,
        f"{len(storm.reads)} reads meanwhile, {strange} of what was not so",
    )


async def _blow(stage: Stage, alias: str, versions: Sequence[str]) -> Storm:
    """Move the alias to every version at once, on both processes in turn, and read it all along."""
    storm, is_over = Storm(), asyncio.Event()
    apis = itertools.cycle(stage.pair.apis)

    async def move(version: str) -> None:
        """Go on asking where the queue for the alias is too long, as 503 says one may."""
        sent, status = time.time(), 0
        for _ in range(TRIES):
            async with stage.crowd.put(
                f"{next(apis).url}{alias}", json={"version": version}, headers=stage.admin
            ) as answer:
                await answer.read()
                status = answer.status
            if status != httpx.codes.SERVICE_UNAVAILABLE:
                break
            storm.refused += 1
            await asyncio.sleep(PAUSE_SECONDS)
        storm.moves.append(Done(sent=sent, answered=time.time(), status=status, version=version))

    async def read_on() -> None:
        count = 0
        # Some read after all is said, who must see the last of them.
        while not is_over.is_set() or count < READS:
            count += 1
            api, sent = next(apis), time.time()
            async with stage.crowd.get(f"{api.url}{alias}", headers=stage.admin) as answer:
                told = await answer.json()
                if answer.status == httpx.codes.OK:
                    storm.reads.append(
                        Done(
                            sent=sent,
                            answered=time.time(),
                            status=answer.status,
                            version=told["version"],
                        )
                    )

    readers = [asyncio.create_task(read_on()) for _ in range(READERS)]
    await asyncio.gather(*(move(version) for version in versions))
    is_over.set()
    await asyncio.gather(*readers)
    return storm


async def _ask_for_moments(stage: Stage, alias: str, moves: Sequence[Move]) -> tuple[int, int]:
    """Ask for each move's own time, the tick before the next, and before the first."""
    last = SystemClock().now()
    moments: list[tuple[datetime, str | None]] = [(moves[0].at - TICK, None)]
    for move, until in zip(moves, [*(each.at for each in moves[1:]), last], strict=True):
        moments += [(move.at, move.version), (until - TICK, move.version)]

    async def is_wrong(moment: tuple[datetime, str | None]) -> bool:
        at, version = moment
        return await _version_at(stage, alias, at) != version

    wrong = await _at_most(AT_ONCE, is_wrong, moments)
    return sum(wrong), len(wrong)


async def _version_at(stage: Stage, alias: str, at: datetime) -> str | None:
    """Tell the version that was named then; none where there is no move yet."""
    async with stage.crowd.get(
        f"{stage.pair.apis[1].url}{alias}/history",
        params={"at": at.isoformat().replace("+00:00", "Z")},
        headers=stage.admin,
    ) as answer:
        told = await answer.json()
        if answer.status == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        return Move.of(told["items"][0]).version


async def _history(stage: Stage, alias: str) -> list[Move]:
    """Read all moves, page by page; they come newest first."""
    client, moves, cursor = stage.client(stage.pair.apis[0]), [], None
    while True:
        wanted = {"limit": "30"} | ({} if cursor is None else {"cursor": cursor})
        answer = await client.get(f"{alias}/history", params=wanted, headers=stage.admin)
        page = answer.raise_for_status().json()
        moves += [Move.of(told) for told in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return moves[::-1]


async def _delete(stage: Stage, alias: str) -> bool:
    client = stage.client(stage.pair.apis[0])
    deleted = await client.delete(alias, headers=stage.admin)
    after = await client.get(alias, headers=stage.admin)
    moves = await _history(stage, alias)
    return (
        deleted.status_code == httpx.codes.NO_CONTENT
        and after.status_code == httpx.codes.NOT_FOUND
        and moves[-1].version is None
        and len(moves) == MOVES + 1
    )


async def _make_ready(stage: Stage, model: str, version: str) -> None:
    client = stage.client(stage.pair.apis[0])
    path = f"{model}/versions/{version}"
    await stage.post(f"{model}/versions", {"version": version})
    file: dict[str, Any] = {
        "url": f"{path}/files/notes.txt",
        "content": b"as told",
        "headers": stage.admin,
    }
    put = await client.put(**file)
    for _ in range(TRIES):
        # As a busy machine says, of which models and versions are asked for again as well.
        if put.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        await asyncio.sleep(PAUSE_SECONDS)
        put = await client.put(**file)
    put.raise_for_status()
    await stage.post(f"{path}/transition", {"status": "ready"})


async def _at_most(number: int, act: Callable[[T], Awaitable[R]], over: Sequence[T]) -> list[R]:
    """Do it for all, so many at a time."""
    slots = asyncio.Semaphore(number)

    async def in_turn(each: T) -> R:
        async with slots:
            return await act(each)

    return list(await asyncio.gather(*(in_turn(each) for each in over)))
