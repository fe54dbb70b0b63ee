"""`python -m bench`: the rows of speed that this project answers for, each beside its floor.

Wall time is noisy on a shared machine, so requests are counted in CPU time of the API process.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.artifacts import ArtifactRow, measure_artifacts
from bench.audit import BACKLOG, EVENTS, AuditRow, measure_audit
from bench.gateway import compare, measure_growth
from bench.gateway_rows import figures_table, goal_rows, growth_row
from bench.login import HOLD_UP_GOAL_MS, LoginRow, measure_logins
from bench.login import SHARE_GOAL as LOGIN_SHARE_GOAL
from bench.platform import run_platform
from bench.quota import measure_quota
from bench.registry import MODELS as REGISTERED
from bench.registry import RIVAL, RegistryRow, measure_registry
from bench.registry_search import MODELS as SEARCHED
from bench.registry_search import VERSIONS_EACH, measure_registry_search
from bench.report import write_section
from bench.requests import RequestRow, measure_requests
from bench.search import MODELS, P95_GOAL_MS, PEOPLE, SearchRow, measure_searches
from bench.sign_in import GAP_GOAL_MS, SHARE_GOAL, TellingRow, measure_telling
from bench.trail import TrailRow, measure_trail
from bench.trail_data import EVENTS as TRAIL_EVENTS
from bench.trail_data import fill_platform
from bench.trail_export import GROWTH_GOAL_MIB, ExportRow, measure_exports
from bench.trail_export import HOLD_UP_GOAL_MS as EXPORT_HOLD_UP_MS
from bench.trail_export import ROWS as EXPORTED
from bench.trail_statistics import measure_statistics
from bench.usage import measure_usage
from bench.usage_data import ROWS as CALLS

GROUPS = (
    "start",
    "requests",
    "logins",
    "artifacts",
    "telling",
    "audit",
    "search",
    "trail",
    "usage",
    "quota",
    "registry",
    "gateway",
    "growth",
)
COLD_GOAL_SECONDS = 6.0
WARM_GOAL_SECONDS = 3.0
FILE_SHARE_GOAL = 0.6
MEMORY_GOAL_MIB = 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, nargs="+", default=GROUPS, metavar="GROUP",
                        help=f"measure these alone: {', '.join(GROUPS)}")  # fmt: skip
    parser.add_argument("--backlog", action="store_true",
                        help=f"flush {BACKLOG:,} events instead of {EVENTS:,}")  # fmt: skip
    parser.add_argument("--events", type=int, default=TRAIL_EVENTS,
                        help=f"ask a trail of so many, not {TRAIL_EVENTS:,}")  # fmt: skip
    parser.add_argument("--calls", type=int, default=CALLS,
                        help=f"ask a usage ledger of so many, not {CALLS:,}")  # fmt: skip
    parser.add_argument("--write", action="store_true",
                        help="keep the figures in docs/performance.md")  # fmt: skip
    arguments = parser.parse_args()
    wanted, events = frozenset(arguments.only), BACKLOG if arguments.backlog else EVENTS
    console = Console(width=100)
    with tempfile.TemporaryDirectory(prefix="maas-bench-") as name:
        folder = Path(name)
        # The private servers run as another user where this one is root.
        folder.chmod(0o711)
        tables = [_measure(wanted, folder, console, events=events)]
        tables += _measure_apart(wanted, folder, console, arguments)
        measured: dict[str, list[Table]] = {}
        for group, table in chain.from_iterable(tables):
            console.print(table)
            measured.setdefault(group, []).append(table)
    if arguments.write:
        for group, of_group in measured.items():
            write_section(group, of_group)


def _measure(
    wanted: frozenset[str], folder: Path, console: Console, *, events: int
) -> Iterator[tuple[str, Table]]:
    """Measure group by group; the people of `search` come last, for others would meet them."""
    data = folder / "data"
    with console.status("starting cold"), run_platform(data) as platform:
        cold = platform.ready_after_seconds
    with console.status("starting warm"), run_platform(data) as platform:
        if "start" in wanted:
            yield "start", _start_table(cold, platform.ready_after_seconds)
        if "requests" in wanted:
            with console.status("requests"):
                rows = measure_requests(platform)
            yield "requests", _request_table(rows)
        if "logins" in wanted:
            with console.status("logins"):
                logins = measure_logins(platform)
            yield "logins", _login_table(logins)
        if "artifacts" in wanted:
            with console.status("artifacts"):
                artifacts = measure_artifacts(platform, folder)
            yield "artifacts", _artifact_table(artifacts)
    if "telling" in wanted:
        with (
            console.status("what times tell"),
            run_platform(data, MAAS_AUTH__LOGIN_THROTTLE="false") as platform,
        ):
            telling = measure_telling(platform)
        yield "telling", _telling_table(telling)
    if "audit" in wanted:
        with console.status("the trail"), run_platform(data) as platform:
            trail = measure_audit(platform, events=events)
        yield "audit", _goal_table(trail, "The audit trail, on durable servers")
    if "search" in wanted:
        with console.status("search"), run_platform(data) as platform:
            found = measure_searches(platform)
        yield "search", _search_table(found)


def _measure_apart(
    wanted: frozenset[str], folder: Path, console: Console, arguments: argparse.Namespace
) -> Iterator[Iterator[tuple[str, Table]]]:
    """Tell of the groups with platforms of their own, each measured when its tables are asked."""
    apart: Mapping[str, Callable[[], Iterator[tuple[str, Table]]]] = {
        "trail": lambda: _measure_trail(folder, console, events=arguments.events),
        "quota": lambda: _measure_quota(folder, console),
        "usage": lambda: _measure_usage(folder, console, calls=arguments.calls),
        "registry": lambda: _measure_registry(folder, console),
        "gateway": lambda: _measure_gateway(folder, console),
        "growth": lambda: _measure_growth(folder, console),
    }
    return (measure() for group, measure in apart.items() if group in wanted)


def _measure_trail(folder: Path, console: Console, *, events: int) -> Iterator[tuple[str, Table]]:
    """Ask the trail of a platform of its own, whose other events are replaced."""
    with run_platform(folder / "trail") as platform:
        filled = fill_platform(platform.data_dir, events=events, progress=console.log)
        with console.status("the trail, asked"):
            rows = measure_trail(platform, filled)
        yield "trail", _trail_table(rows, events)
        with console.status("the trail, counted"):
            counted = measure_statistics(platform, filled)
        yield "trail", _trail_table(counted, events)
        with console.status("the trail, exported"):
            exports = measure_exports(platform, rows=min(events, EXPORTED))
        yield "trail", _export_table(exports)


def _measure_usage(folder: Path, console: Console, *, calls: int) -> Iterator[tuple[str, Table]]:
    """Ask the ledger of a platform of its own, which limits nobody's rate."""
    with run_platform(folder / "usage", MAAS_RATE_LIMITS__ENABLED="false") as platform:
        rows = measure_usage(platform, rows=calls, progress=console.log)
        table = _trail_table(rows, calls)
        table.title = f"Usage over {calls:,} calls"
        yield "usage", table


def _measure_quota(folder: Path, console: Console) -> Iterator[tuple[str, Table]]:
    with console.status("budgets"), run_platform(folder / "quota") as platform:
        rows = measure_quota(platform)
    title = "Budgets: nine quotas in three scopes, on durable servers"
    yield "quota", _goal_table(rows, title)


def _measure_registry(folder: Path, console: Console) -> Iterator[tuple[str, Table]]:
    """Stand the registry beside MLflow's, on a platform of its own."""
    with console.status(f"the registry and {RIVAL}"), run_platform(folder / "registry") as platform:
        rows = measure_registry(platform, folder)
    yield "registry", _registry_table(rows)
    name = "the registry, searched"
    with console.status(name), run_platform(folder / "registry-search") as platform:
        found = measure_registry_search(platform)
        table = _trail_table(found, SEARCHED * VERSIONS_EACH)
        table.title = f"The registry searched, {SEARCHED * VERSIONS_EACH:,} versions"
        yield "registry", table


def _measure_gateway(folder: Path, console: Console) -> Iterator[tuple[str, Table]]:
    """Call one model by three ways; the goals come last, for they are read off the figures."""
    with console.status("the gateway and LiteLLM"):
        compared = compare(folder)
    yield "gateway", figures_table(compared)
    yield "gateway", _goal_table(goal_rows(compared), "The gateway beside LiteLLM's proxy")


def _measure_growth(folder: Path, console: Console) -> Iterator[tuple[str, Table]]:
    with console.status("the gateway's memory"):
        growth = measure_growth(folder / "growth")
    yield "growth", _goal_table([growth_row(growth)], "Memory of the API process")


def _goal_table(rows: Iterable[AuditRow], title: str) -> Table:
    table = Table("asked for", "figure", "goal", "", title=title)
    for row in rows:
        table.add_row(
            row.name,
            row.figure,
            row.goal,
            "" if row.is_met is None else _mark(is_met=row.is_met),
        )
    return table


def _registry_table(rows: list[RegistryRow]) -> Table:
    table = Table("call", "CPU ms", "PostgreSQL's", f"{RIVAL} ms", "PostgreSQL's", "ratio", "goal")
    table.add_column("")
    table.title = f"The registry beside {RIVAL}, {REGISTERED:,} models: CPU of all processes a call"
    for row in rows:
        ours, theirs = (row.ours.total, row.ours.postgres), (row.theirs.total, row.theirs.postgres)
        figures = [f"{figure:.2f}" for figure in (*ours, *theirs, row.ratio)]
        mark = _mark(is_met=row.is_met)
        table.add_row(row.name, *figures[:-1], f"{figures[-1]}x", f"<= {row.goal:.2f}x", mark)
    return table


def _export_table(rows: list[ExportRow]) -> Table:
    table = Table("export", "rows/s", "MiB", "server + MiB", "child MiB", "loop held up ms", "")
    table.title = f"GET /audit/logs/export of {rows[0].rows:,} events"
    for row in rows:
        figures = (row.rate, row.size_mib, row.growth_mib, row.child_mib, row.longest_hold_up_ms)
        mark = _mark(is_met=row.is_met)
        table.add_row(row.format, *(f"{figure:,.0f}" for figure in figures), mark)
    goal = f"goal: growth <= {GROWTH_GOAL_MIB:.0f} MiB, held up <= {EXPORT_HOLD_UP_MS:.0f} ms"
    table.caption = goal
    return table


def _trail_table(rows: list[TrailRow], events: int) -> Table:
    table = Table("asked for", "figure", "goal", "", title=f"A trail of {events:,} events, asked")
    for row in rows:
        mark = "" if row.is_met is None else _mark(is_met=row.is_met)
        table.add_row(row.name, row.figure, row.goal, mark)
    return table


def _mark(*, is_met: bool) -> str:
    return "[green]met[/]" if is_met else "[red]missed[/]"


def _request_table(rows: list[RequestRow]) -> Table:
    table = Table("route", "CPU us", "bare us", "ratio", "goal", "", title="CPU per request")
    for row in rows:
        mark = _mark(is_met=row.ratio <= row.goal)
        figures = (f"{row.cpu_us:.0f}", f"{row.bare_us:.0f}", f"{row.ratio:.2f}x")
        table.add_row(row.name, *figures, f"<= {row.goal}x", mark)
    return table


def _telling_table(rows: list[TellingRow]) -> Table:
    title = "What the time of an answer tells (medians)"
    table = Table("route", "account there ms", "not there ms", "gap ms", "goal", "", title=title)
    for row in rows:
        goal = f"<= {SHARE_GOAL:.0%} or {GAP_GOAL_MS:.0f} ms"
        figures = (f"{row.known_ms:.2f}", f"{row.unknown_ms:.2f}", f"{row.gap_ms:.2f}")
        table.add_row(row.name, *figures, goal, _mark(is_met=row.is_met))
    return table


def _login_table(row: LoginRow) -> Table:
    table = Table("sign-ins", "login", "bare argon2id", "share", "goal", "")
    table.title = "POST /auth/login beside bare argon2id, the same parameters"
    goal = f">= {LOGIN_SHARE_GOAL}x"
    cpu = (f"{row.cpu_ms:.1f}", f"{row.bare_cpu_ms:.1f}", f"{row.cpu_share:.2f}x")
    rate = (f"{row.rate:.1f}", f"{row.bare_rate:.1f}", f"{row.rate_share:.2f}x")
    table.add_row("CPU ms", *cpu, goal, _mark(is_met=row.cpu_share >= LOGIN_SHARE_GOAL))
    table.add_row("a second", *rate, goal, _mark(is_met=row.rate_share >= LOGIN_SHARE_GOAL))
    held = row.longest_hold_up_ms
    mark = _mark(is_met=held <= HOLD_UP_GOAL_MS)
    table.add_row(
        "event loop held up, ms", f"{held:.1f}", "", "", f"<= {HOLD_UP_GOAL_MS:.0f}", mark
    )
    return table


def _search_table(rows: list[SearchRow]) -> Table:
    title = f"Searches: {PEOPLE:,} people, {MODELS:,} models; first page and one half-way down"
    table = Table("query", "p50 ms", "p95 ms", "CPU ms", "goal", "", title=title)
    for row in rows:
        figures = (f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.cpu_ms:.1f}")
        mark = _mark(is_met=row.p95_ms <= P95_GOAL_MS)
        table.add_row(row.name, *figures, f"p95 <= {P95_GOAL_MS:.0f} ms", mark)
    return table


def _artifact_table(rows: list[ArtifactRow]) -> Table:
    table = Table("direction", "s", "share", "API CPU s", "share", "memory +MiB", "goal", "")
    table.title = "Artifacts, beside cp + sha256sum of the same file (shares are of that)"
    for row in rows:
        is_met = row.share >= FILE_SHARE_GOAL and row.memory_growth_mib <= MEMORY_GOAL_MIB
        table.add_row(
            row.name,
            f"{row.seconds:.2f}",
            f"{row.wall_share:.0%}",
            f"{row.cpu_seconds:.2f}",
            f"{row.cpu_share:.0%}",
            f"{row.memory_growth_mib:.0f}",
            f">= {FILE_SHARE_GOAL:.0%}, <= {MEMORY_GOAL_MIB} MiB",
            _mark(is_met=is_met),
        )
    return table


def _start_table(cold: float, warm: float) -> Table:
    table = Table("start", "s", "goal", "", title="`maas up` until /health/ready is 200")
    table.add_row(
        "cold",
        f"{cold:.2f}",
        f"<= {COLD_GOAL_SECONDS:.0f} s",
        _mark(is_met=cold <= COLD_GOAL_SECONDS),
    )
    table.add_row(
        "warm",
        f"{warm:.2f}",
        f"<= {WARM_GOAL_SECONDS:.0f} s",
        _mark(is_met=warm <= WARM_GOAL_SECONDS),
    )
    return table


if __name__ == "__main__":
    main()
