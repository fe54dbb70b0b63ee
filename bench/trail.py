"""The trail asked over HTTP, as `maas_app` with row-level security on, in one tenant's millions.

Each filter is asked in both orders for values that many events have, few, and none, and for the
start of the time as well as its end. Combinations that no index answers are measured beside, with
no goal: their pages are short instead of late.
"""

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import httpx
import psutil

from bench.platform import RunningPlatform, cpu_ms_of
from bench.trail_data import Filled
from maas.shared.domain.ids import new_id

P95_GOAL_MS: Final = 100.0
DEPTH_GOAL: Final = 2.0
DEEP_PAGE: Final = 1_000
PAGE: Final = 50
STEP: Final = 200
REPEATS: Final = 5
DEPTH_REPEATS: Final = 30
TRIES: Final = 3
LOGS: Final = "/audit/logs"

Query: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailRow:
    """One question's figures; without a goal it is there to be seen."""

    name: str
    figure: str
    goal: str = ""
    is_met: bool | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who is asked. The time of the platform's processors is what a busy machine leaves alone."""

    client: httpx.Client
    supervisor: psutil.Process

    def measure(self, name: str, queries: Sequence[Query], *, has_goal: bool) -> TrailRow:
        before, ms = cpu_ms_of(self.supervisor), list[float]()
        for _ in range(REPEATS):
            for query, order in itertools.product(queries, ("newest", "oldest")):
                ms.append(_ask(self.client, {**query, "order": order})[0])
        cpu = (cpu_ms_of(self.supervisor) - before) / len(ms)
        p95 = statistics.quantiles(ms, n=20)[-1]
        figure = f"p50 {statistics.median(ms):.1f}, p95 {p95:.1f} ms, CPU {cpu:.1f} ms"
        if not has_goal:
            return TrailRow(name=f"combined: {name}", figure=figure)
        goal = f"p95 <= {P95_GOAL_MS:.0f} ms"
        return TrailRow(name=name, figure=figure, goal=goal, is_met=p95 <= P95_GOAL_MS)

    def compare_depth(self, name: str, query: Query) -> TrailRow:
        """Ask for the first page and one far down by turns: noise is the same for both."""
        walk = _cursors(self.client, query)
        cursors = list(itertools.islice(walk, DEEP_PAGE * PAGE // STEP))
        pages, cursor = len(cursors) * STEP // PAGE, cursors[-1]
        first, deep = list[float](), list[float]()
        for _ in range(DEPTH_REPEATS):
            first.append(_ask(self.client, query)[0])
            deep.append(_ask(self.client, {**query, "cursor": cursor})[0])
        ratio = statistics.median(deep) / statistics.median(first)
        return TrailRow(
            name=f"page {pages:,} beside page 1, {name}",
            figure=(
                f"{statistics.median(deep):.1f} beside {statistics.median(first):.1f} ms,"
                f" {ratio:.2f}x"
            ),
            goal=f"<= {DEPTH_GOAL:.0f}x",
            is_met=ratio <= DEPTH_GOAL,
        )


def measure_trail(platform: RunningPlatform, filled: Filled) -> list[TrailRow]:
    headers = {"Authorization": f"Bearer {platform.sign_in()}"}
    with httpx.Client(base_url=f"{platform.url}/api/v1", headers=headers, timeout=60) as client:
        asked = _Asked(client, psutil.Process(platform.process.pid))
        some = _some_events(client, filled)
        for query in _combinations(filled, some).values():
            # What a process does for the first time is not what is measured.
            _ask(client, query[0])
        rows = [
            asked.measure(name, queries, has_goal=True)
            for name, queries in _filters(filled, some).items()
        ]
        rows += [
            asked.measure(name, queries, has_goal=False)
            for name, queries in _combinations(filled, some).items()
        ]
        rows += [asked.compare_depth(name, query) for name, query in _deep(filled).items()]
        rows.append(_measure_neighbours(client, some))
    return rows


def _some_events(client: httpx.Client, filled: Filled) -> list[dict[str, Any]]:
    """Take events of all times; what is asked for is theirs."""
    span, found = filled.span, []
    for part in (0.05, 0.3, 0.6, 0.9, 0.99):
        until = _spell(span.first + (span.last - span.first) * part)
        answer = client.get(LOGS, params={"until": until, "limit": 1, "action": "model.updated"})
        found += answer.raise_for_status().json()["items"]
    return found


def _filters(filled: Filled, some: Sequence[dict[str, Any]]) -> dict[str, list[Query]]:
    tenant, span = filled.tenant, filled.span
    middle = span.first + (span.last - span.first) / 2
    day = {"since": _spell(middle), "until": _spell(middle + timedelta(days=1))}
    month = {"since": _spell(middle - timedelta(days=10)), "until": _spell(middle)}
    people = [tenant.people[0], tenant.people[40], tenant.people[2_900], tenant.rare[0]]
    kinds: list[Query] = [
        {"resource_kind": "model", "resource_id": tenant.resources[0]},
        *({"resource_kind": "model", "resource_id": each["resource"]["id"]} for each in some),
        {"resource_kind": "model", "resource_id": "nothing"},
    ]
    actions = ("inference.completed", "auth.login", "tenant.updated", "tenant.deleted", "no.such")
    texts = (
        "login", "e", "in", "zzqqxx", "nils", "anna.adler0", "伟", "应业主", "%", "CREDENTIALS",
        "@example.com", "guess17", tenant.rare[3].name or "",
    )  # fmt: skip
    networks = ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "2001:db8::/32", "11.0.0.0/8")
    return {
        "none": [{}, day],
        "actor_id": [{"actor_id": str(id_)} for id_ in (*(one.id for one in people), new_id())],
        "action": [{"action": action} for action in actions],
        "action, a prefix": [{"action": p} for p in ("auth.*", "model*", "tenant.*", "no.such*")],
        "resource_kind": [{"resource_kind": kind} for kind in ("model", "tenant", "nothing")],
        "resource_kind and resource_id": kinds,
        "resource_id": [{"resource_id": each["resource_id"]} for each in kinds],
        "outcome": [{"outcome": outcome} for outcome in ("success", "failure", "denied")],
        "outcome, where there is none": [{"outcome": "failure", **month}],
        "address": [{"address": a} for a in (*tenant.addresses[:3000:1000], "192.0.2.1")],
        "address, a network": [{"address": network} for network in networks],
        "request_id": [{"request_id": id_} for id_ in (*(e["request_id"] for e in some), "n")],
        "session_id": [{"session_id": each["session_id"]} for each in some if each["session_id"]],
        "api_key_id": [{"api_key_id": str(id_)} for id_ in (tenant.people[0].id, new_id())],
        "q": [{"q": text} for text in texts],
        "q, long ago": [{"q": text, "until": _spell(middle)} for text in ("login", "e", "伟")],
        "actor_id and action": [
            {"actor_id": str(one.id), "action": action}
            for one in people
            for action in ("auth.*", "inference.completed", "tenant.deleted")
        ],
        "actor_id and outcome": [{"actor_id": str(p.id), "outcome": "failure"} for p in people],
        "action and outcome": [
            {"action": action, "outcome": "failure"} for action in (*actions, "model_file.*")
        ],
    }


def _combinations(filled: Filled, some: Sequence[dict[str, Any]]) -> dict[str, list[Query]]:
    tenant = filled.tenant
    hot, other = tenant.people[0], tenant.people[2]
    resource = {"resource_kind": "model", "resource_id": some[2]["resource"]["id"]}
    return {
        "actor and somebody else's address": [
            {"actor_id": str(hot.id), "address": other.address or ""}
        ],
        "action and network": [{"action": "inference.completed", "address": "10.1.1.0/24"}],
        "q and outcome": [{"q": "anna", "outcome": "failure"}],
        "q and actor": [{"q": "login", "actor_id": str(hot.id)}],
        "resource and actor": [{**resource, "actor_id": str(hot.id)}],
        "resource and outcome": [{**resource, "outcome": "failure"}],
        "actor, action and outcome": [
            {"actor_id": str(hot.id), "action": "inference.completed", "outcome": "denied"}
        ],
    }


def _deep(filled: Filled) -> dict[str, Query]:
    return {
        "no filter": {},
        "actor_id": {"actor_id": str(filled.tenant.people[0].id)},
        "action": {"action": "inference.completed"},
        "action, a prefix": {"action": "auth.*"},
        "outcome": {"outcome": "failure"},
        "address, a network": {"address": "10.1.0.0/16"},
        "q": {"q": "login"},
    }


def _cursors(client: httpx.Client, query: Query) -> Iterator[str]:
    cursor = None
    while True:
        page = {"limit": str(STEP)} if cursor is None else {"limit": str(STEP), "cursor": cursor}
        cursor = _ask(client, {**query, **page})[1]["next_cursor"]
        if cursor is None:
            return
        yield cursor


def _measure_neighbours(client: httpx.Client, some: Sequence[dict[str, Any]]) -> TrailRow:
    ms = []
    for _ in range(REPEATS):
        for each in some:
            began = time.perf_counter()
            client.get(f"{LOGS}/{each['id']}/neighbours").raise_for_status()
            ms.append((time.perf_counter() - began) * 1000)
    p95 = statistics.quantiles(ms, n=20)[-1]
    return TrailRow(
        name="an event with its neighbours",
        figure=f"p50 {statistics.median(ms):.1f} ms, p95 {p95:.1f} ms",
        goal=f"p95 <= {P95_GOAL_MS:.0f} ms",
        is_met=p95 <= P95_GOAL_MS,
    )


def _ask(client: httpx.Client, query: Query) -> tuple[float, dict[str, Any]]:
    """Ask until there is an answer, which a cold disk may take too long for; all of it counts."""
    began = time.perf_counter()
    answer = client.get(LOGS, params={"limit": str(PAGE), **query})
    for _ in range(TRIES):
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        answer = client.get(LOGS, params={"limit": str(PAGE), **query})
    took = (time.perf_counter() - began) * 1000
    page: dict[str, Any] = answer.raise_for_status().json()
    return took, page


def _spell(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
