"""Access that was taken away stays away, and a minute without Redis is served from PostgreSQL.

Two real API processes, each with a link of its own to the Valkey they share.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.acceptance.verdict import Finding, Verdict, all_of
from tests.outage import Outage, live_through
from tests.pair import WITHOUT_LIMITS, Api, DatabaseUrls, Pair, running_pair
from tests.revoking import CONDITIONS, KINDS, Kind, Pace, Tally, take_away
from tests.servers import TEMPLATE, RunningServers, migrate_template
from tests.stage import PASSWORD, PROFILE, REFRESH, Stage, staged

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 10_000
PACE = Pace(linger_seconds=7.0, outage_seconds=2.5, pause_seconds=0.02)
ROUNDS = 4
RACES, RACED = (20, 100, 200), 10
THEFTS, STOLEN_USES = 50, 4
P99_SECONDS = 0.5
VISIBLE_SECONDS = 60.0
GUESSES = 10


@contextmanager
def pair_of_its_own(settings: Mapping[str, str], *, with_worker: bool = False) -> Iterator[Pair]:
    running = RunningServers()
    try:
        servers = running.servers
        migrate_template(servers, ROOT / "alembic.ini")
        urls = DatabaseUrls(
            app=servers.database_url(TEMPLATE, "maas_app"),
            owner=servers.database_url(TEMPLATE, "maas_owner"),
            system=servers.database_url(TEMPLATE, "maas_system"),
        )
        with running_pair(urls, settings, with_worker=with_worker) as pair:
            yield pair
    finally:
        running.stop()


def nobody_is_let_in(_: Path) -> Verdict:
    return refuse_what_was_taken(KINDS)


def refuse_what_was_taken(kinds: Sequence[Kind]) -> Verdict:
    with pair_of_its_own(WITHOUT_LIMITS) as pair:
        tallies = asyncio.run(_take_away_in_all(pair, kinds))
        dead = pair.dead()
    total = Tally()
    for tally in tallies.values():
        total += tally
    each = ", ".join(f"{name} {tally.asked}" for name, tally in tallies.items())
    fewest = min(total.acts[kind.name] for kind in kinds)
    others = total.bystanders
    return all_of(
        (total.asked >= REQUESTS, f"{total.asked} requests after the answer ({each})"),
        (not total.accepted, f"{len(total.accepted)} accepted {total.accepted[:3] or ''}".strip()),
        (fewest > 0, f"{total.acts.total()} acts of {len(kinds)} kinds"),
        (total.revived > 0, f"{total.revived} that the old AOF called valid"),
        (not total.odd, f"{total.odd.total()} odd answers {dict(total.odd) or ''}".strip()),
        (not total.wrongly_refused, f"{len(total.wrongly_refused)} ended by mistake"),
        (others[401] == 0, f"{others[200] + others[201]} of {others.total()} others served"),
        (not dead, "cheap Argon2, no throttle"),
    )


async def _take_away_in_all(pair: Pair, kinds: Sequence[Kind]) -> dict[str, Tally]:
    """Take access away in every condition, each for its share of the requests."""
    tallies = {}
    share = REQUESTS // len(CONDITIONS)
    async with staged(pair) as stage:
        for condition in CONDITIONS:
            tally = Tally()
            # A machine too busy to restart Redis in time gets another go.
            for _ in range(ROUNDS):
                tally += await take_away(
                    stage, condition, kinds=kinds, each=2, pace=PACE, asked=share
                )
                if condition != "old AOF" or tally.revived:
                    break
            tallies[condition] = tally
    return tallies


def one_successor(_: Path) -> Verdict:
    with pair_of_its_own(WITHOUT_LIMITS) as pair:
        return asyncio.run(_race(pair))


async def _race(pair: Pair) -> Verdict:
    async with staged(pair) as stage:
        name, _ = await stage.make_person("user")
        races = [await race(stage, name, uses=uses) for uses in RACES for _ in range(RACED)]
        thefts = [await steal(stage, name, uses=STOLEN_USES) for _ in range(THEFTS)]
    statuses: Counter[int] = sum((each.statuses for each in races), Counter())
    return all_of(
        (statuses.keys() == {200}, f"{len(races)} races answered {dict(statuses)}"),
        (all(each.successors == 1 for each in races), "one successor each"),
        (all(each.lives_on for each in races), "no session ended"),
        (all(thefts), f"{sum(thefts)} of {len(thefts)} thefts ended the session"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What many uses of one refresh token at once came to."""

    statuses: Counter[int]
    successors: int
    lives_on: bool


async def race(stage: Stage, person: str, *, uses: int) -> Race:
    """Use one refresh token so many times at once, on the two processes in turn."""
    session = await stage.sign_in(person, PASSWORD)
    body = {"refresh_token": session.refresh_token}
    apis = itertools.islice(itertools.cycle(stage.pair.apis), uses)

    async def use(api: Api) -> tuple[int, str | None]:
        async with stage.crowd.post(f"{api.url}{REFRESH}", json=body) as answer:
            told = await answer.json()
            return answer.status, told.get("refresh_token")

    answers = await asyncio.gather(*(use(api) for api in apis))
    successors = {token for _, token in answers if token is not None}
    again = [await _use(stage, token) for token in successors]
    return Race(
        statuses=Counter(status for status, _ in answers),
        successors=len(successors),
        lives_on=again == [httpx.codes.OK],
    )


async def steal(stage: Stage, person: str, *, uses: int) -> bool:
    """Replay an old refresh token at both processes at once; tell whether all of it ended."""
    session = await stage.sign_in(person, PASSWORD)
    stolen = newest = session.refresh_token
    for _ in range(2):
        answer = await stage.client(stage.pair.apis[0]).post(
            REFRESH, json={"refresh_token": newest}
        )
        newest = answer.raise_for_status().json()["refresh_token"]
    apis = list(itertools.islice(itertools.cycle(stage.pair.apis), uses))
    replays = await asyncio.gather(*(_use(stage, stolen, at=api) for api in apis))
    left = [await _use(stage, newest, at=api) for api in stage.pair.apis]
    asked = [await stage.ask(api, PROFILE, session) for api in stage.pair.apis]
    return {*replays, *left, *asked} == {401}


async def _use(stage: Stage, token: str, *, at: Api | None = None) -> int:
    client = stage.client(at or stage.pair.apis[0])
    return (await client.post(REFRESH, json={"refresh_token": token})).status_code


def a_minute_without_redis(_: Path) -> Verdict:
    # Hashing costs what it costs in production; the clients say where they come from.
    trusting = {"MAAS_SERVER__TRUSTED_PROXIES": "127.0.0.1/32"}
    with pair_of_its_own(trusting, with_worker=True) as pair:
        outage = asyncio.run(live_through(pair, seconds=60.0, settle_seconds=VISIBLE_SECONDS))
        dead = pair.dead()
    return judge_outage(outage, dead)


def _pace(outage: Outage, kind: str) -> Finding:
    """Judge how long people waited; the figure of before tells what the machine itself adds."""
    during, before = outage.p99(kind), outage.p99_before(kind)
    figure = f"{outage.count(kind)} {kind}s p99 {during * 1000:.0f} ms"
    return during <= P99_SECONDS, f"{figure} ({before * 1000:.0f} with Redis)"


def judge_outage(outage: Outage, dead: list[str]) -> Verdict:
    return all_of(
        *(_pace(outage, kind) for kind in ("read", "login")),
        (not outage.failures, f"{outage.failures.total()} failed {dict(outage.failures) or ''}"),
        (0 < outage.guesses <= GUESSES, f"{outage.guesses} of {outage.tries} guesses compared"),
        (outage.has_told_the_truth, f"readiness {outage.readiness}, liveness {outage.liveness}"),
        (not outage.accepted, f"{len(outage.accepted)} of {outage.asked} let in after logout"),
        (len(outage.acknowledged) > 0, f"{len(outage.acknowledged)} acknowledged"),
        (not outage.missing, f"{len(outage.missing)} without a row"),
        (not outage.doubled, f"{len(outage.doubled)} with two"),
        (not dead, f"visible {outage.settled_seconds:.1f} s after Redis came back"),
    )
