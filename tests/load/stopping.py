"""G19: SIGTERM under load. What was accepted is answered, or told why not; and it is all over soon.

First a deployment: both API processes of a cluster one after the other, twice, then its worker and
beat. Then a whole `maas up`, started again on its folder. Calls that go to `short` end within the
time a server has to stop; those to `long` do not, and must be told.
"""

import asyncio
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from maas.embedded.endpoints import find_running
from maas.embedded.postgres import PORT, SUPERUSER
from tests.acceptance.platforms import Platform, running
from tests.chaos.cluster import Cluster, running_cluster
from tests.chaos.invariants import settle
from tests.deployed import Supplier, deploy, make_key, make_person, sign_in
from tests.load.callers import STOPPED, Callers, Told
from tests.load.report import Row
from tests.load.world import CALLER, SUPPLIER_KEY
from tests.stage import PASSWORD
from tests.upstream.process import RunningUpstream, running_upstream
from tests.upstream.scripts import Script

MAX_STOP_SECONDS: Final = 10.0
COUNT: Final = 30
SCRIPTS: Final[Mapping[str, Script]] = {
    "short": Script(tokens=20, chunk_delay=0.1),
    "long": Script(tokens=300, chunk_delay=0.1),
}
MODELS: Final = ("short", "short", "short", "short", "long")
RUN_IN_SECONDS: Final = 3.0
HOLDS_SECONDS: Final = 20.0
SETTLED: Final = """
    SELECT request_id, count(*) AS rows FROM usage
    WHERE request_id LIKE 'load-%' AND storage_bytes = 0 GROUP BY request_id
"""


@dataclass(slots=True, kw_only=True)
class Stopped:
    """What came of stopping something."""

    name: str
    seconds: list[float] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    unsettled: list[str] = field(default_factory=list)
    """Calls that the upstream answered and that are not in the ledger once."""
    holds: int = 0
    accepted: set[str] = field(default_factory=set)
    verified: int = 0


def measure(folder: Path, *, seconds: float, tell: Callable[[str], None]) -> list[Row]:
    with running_upstream(keys=(SUPPLIER_KEY,)) as upstream:
        upstream.put("models", {"models": list(SCRIPTS)})
        for name, script in SCRIPTS.items():
            upstream.script(name, script)
        tell("starting a cluster for a deployment")
        allowed = {"MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": f"127.0.0.1:{upstream.port}"}
        with running_cluster(extra={"api": allowed, "worker": allowed}) as cluster:
            rolled, parts = asyncio.run(_roll(cluster, upstream, tell))
        httpx.delete(f"{upstream.url}/_ledger", trust_env=False).raise_for_status()
        tell("starting a whole platform")
        whole = _stop_all(folder / "stop", upstream, allowed, tell)
    return [*_judge(rolled), *parts, *_judge(whole)]


async def _roll(
    cluster: Cluster, upstream: RunningUpstream, tell: Callable[[str], None]
) -> tuple[Stopped, list[Row]]:
    stopped = Stopped(name="rolling restart")
    key = await asyncio.to_thread(
        _prepare, cluster.urls[0], "root", cluster.admin_password, upstream
    )
    callers = Callers(cluster.urls, key, count=COUNT, models=MODELS)
    calling = asyncio.create_task(callers.call())
    await asyncio.sleep(RUN_IN_SECONDS)
    for api in cluster.apis:
        tell(f"stopping {api.name} with calls under way")
        api.wanted = False
        stopped.seconds.append(await asyncio.to_thread(api.stop))
        stopped.codes.append(api.process.returncode if api.process else None)
        await asyncio.to_thread(api.start)
        await asyncio.sleep(RUN_IN_SECONDS)
    parts = []
    for program in (*cluster.workers[:1], cluster.beat):
        tell(f"stopping {program.name}")
        took = await asyncio.to_thread(program.stop)
        code = program.process.returncode if program.process else None
        await asyncio.to_thread(program.start)
        parts.append(
            Row(
                name=f"stop of {program.name}: over after",
                figure=f"{took:.1f} s, exit {code}",
                goal=f"<= {MAX_STOP_SECONDS:.0f} s",
                is_met=took <= MAX_STOP_SECONDS,
            )
        )
    callers.is_over = True
    tell("waiting for the last calls, and for the trail")
    await calling
    stopped.told = callers.told
    await settle(cluster)
    async with cluster.superuser() as connection:
        await _hold_against(stopped, connection, upstream)
    stopped.verified = await asyncio.to_thread(
        _verify, list(map(str, cluster.apis[0].command[:3])), cluster.apis[0].environment
    )
    return stopped, parts


def _stop_all(
    folder: Path,
    upstream: RunningUpstream,
    settings: Mapping[str, str],
    tell: Callable[[str], None],
) -> Stopped:
    stopped = Stopped(name="stop of `maas up`")
    folder.mkdir(mode=0o755)
    with ExitStack() as stack:
        platform = stack.enter_context(running(folder, settings=settings))
        person = platform.sign_in()
        key = _prepare_as(platform.url, person.token, upstream)
        asyncio.run(_stop_under_calls(platform, key, stopped, tell))
        tell("starting it again")
    with running(folder, settings=settings) as platform:
        asyncio.run(_look_into(platform, stopped, upstream))
        command = [platform.process.args[0], "-m", "maas.cli"]  # type: ignore[index]  # a list
        environment = {**platform.given, "MAAS_DATA_DIR": str(platform.data_dir)}
        stopped.verified = _verify([str(each) for each in command], environment)
    return stopped


async def _stop_under_calls(
    platform: Platform, key: str, stopped: Stopped, tell: Callable[[str], None]
) -> None:
    callers = Callers([platform.url], key, count=COUNT, models=MODELS)
    calling = asyncio.create_task(callers.call())
    await asyncio.sleep(RUN_IN_SECONDS)
    tell("stopping it with calls under way")
    stopped.seconds.append(await asyncio.to_thread(platform.stop))
    stopped.codes.append(platform.process.returncode)
    callers.is_over = True
    await calling
    stopped.told = callers.told


async def _look_into(platform: Platform, stopped: Stopped, upstream: RunningUpstream) -> None:
    endpoints = find_running(platform.data_dir)
    assert endpoints is not None
    connection = await asyncpg.connect(
        host=str(endpoints.folder.postgres_sockets),
        port=PORT,
        user=SUPERUSER,
        password=endpoints.credentials.superuser_password,
        database="maas",
    )
    try:
        await _hold_against(stopped, connection, upstream)
    finally:
        await connection.close()


async def _hold_against(
    stopped: Stopped,
    connection: "asyncpg.Connection[asyncpg.Record]",
    upstream: RunningUpstream,
) -> None:
    """Hold what callers were told against the upstream's books and against the ledger."""
    ledger: dict[str, Any] = await asyncio.to_thread(upstream.ledger)
    stopped.accepted = {str(call["user"]) for call in ledger["calls"] if call["method"] == "POST"}
    for _ in range(round(HOLDS_SECONDS / 0.2)):
        stopped.holds = await connection.fetchval("SELECT count(*) FROM quota_holds")
        if not stopped.holds:
            break
        await asyncio.sleep(0.2)
    rows = {row["request_id"]: row["rows"] for row in await connection.fetch(SETTLED)}
    stopped.unsettled = sorted(
        f"{call} has {rows.get(call, 0)} rows"
        for call in stopped.accepted
        if rows.get(call, 0) != 1
    )


def _prepare(url: str, name: str, password: str, upstream: RunningUpstream) -> str:
    with sign_in(url, name, password) as client:
        return _deploy_all(client, url, upstream)


def _prepare_as(url: str, token: str, upstream: RunningUpstream) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        return _deploy_all(client, url, upstream)


def _deploy_all(client: httpx.Client, url: str, upstream: RunningUpstream) -> str:
    supplier = Supplier.connect(client, upstream, key=SUPPLIER_KEY)
    for name in SCRIPTS:
        deploy(client, name, [supplier.add_model(name)])
    make_person(client, CALLER)
    with sign_in(url, CALLER, PASSWORD) as caller:
        return make_key(caller, "load", ["inference:call"])[1]


def _verify(command: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(
        [*command, "audit", "verify"],
        env=dict(environment),
        capture_output=True,
        check=False,
        cwd="/",
    ).returncode


def _judge(done: Stopped) -> list[Row]:
    counts = done.told.counts()
    failed = {
        call: end
        for call, end in done.told.unclear().items()
        if call in done.accepted or not end.startswith("no answer")
    }
    unbegun = len(done.told.unclear()) - len(failed)
    told = ", ".join(f"{n} {end}" for end, n in sorted(counts.items()) if end != "whole")
    return [
        Row(
            name=f"{done.name}: accepted calls that failed",
            figure=f"{len(failed)} of {len(done.accepted):,}; {counts['whole']:,} whole, {told}"
            + "".join(f"; {call}: {end}" for call, end in list(failed.items())[:3]),
            goal="0",
            is_met=not failed and counts["whole"] > 0,
        ),
        Row(
            name=f"{done.name}: dropped before they were begun",
            figure=f"{unbegun}",
            goal="0",
            is_met=not unbegun,
        ),
        Row(
            name=f"{done.name}: over after",
            figure=f"{', '.join(f'{each:.1f}' for each in done.seconds)} s,"
            f" exit {', '.join(map(str, done.codes))}",
            goal=f"<= {MAX_STOP_SECONDS:.0f} s",
            is_met=max(done.seconds) <= MAX_STOP_SECONDS,
        ),
        Row(
            name=f"{done.name}: streams told `{STOPPED}`",
            figure=f"{counts['told that the server stops']}",
            goal=">= 1, none cut off",
            is_met=counts["told that the server stops"] > 0,
        ),
        Row(
            name=f"{done.name}: settled",
            figure=f"{len(done.unsettled)} not once in the ledger, {done.holds} holds left,"
            f" `maas audit verify` exit {done.verified}"
            + "".join(f"; {each}" for each in done.unsettled[:3]),
            goal="0, 0, 0",
            is_met=not done.unsettled and not done.holds and not done.verified,
        ),
    ]
