"""`python -m bench`: the rows of speed that this project answers for, each beside its floor.

Wall time is noisy on a shared machine, so requests are counted in CPU time of the API process.
"""

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.files import FileRow, measure_files
from bench.platform import run_platform
from bench.requests import RequestRow, measure_requests
from bench.sign_in import GAP_GOAL_MS, SHARE_GOAL, TellingRow, measure_telling

COLD_GOAL_SECONDS = 6.0
WARM_GOAL_SECONDS = 3.0
FILE_SHARE_GOAL = 0.6
MEMORY_GOAL_MIB = 64


def main() -> None:
    console = Console(width=100)
    with tempfile.TemporaryDirectory(prefix="maas-bench-") as name:
        folder = Path(name)
        # The private servers run as another user where this one is root.
        folder.chmod(0o711)
        with console.status("starting cold"), run_platform(folder / "data") as platform:
            cold = platform.ready_after_seconds
        with console.status("starting warm"), run_platform(folder / "data") as platform:
            warm = platform.ready_after_seconds
            with console.status("requests"):
                requests = measure_requests(platform)
            with console.status("files"):
                files = measure_files(platform, folder)
        free = {"MAAS_AUTH__LOGIN_THROTTLE": "false"}
        with console.status("sign-ins"), run_platform(folder / "data", **free) as platform:
            telling = measure_telling(platform)
    console.print(_request_table(requests))
    console.print(_telling_table(telling))
    console.print(_file_table(files))
    console.print(_start_table(cold, warm))


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


def _file_table(rows: list[FileRow]) -> Table:
    table = Table("direction", "s", "cp + sha256sum s", "share", "memory +MiB", "goal", "")
    table.title = "Artifacts"
    for row in rows:
        is_met = row.share >= FILE_SHARE_GOAL and row.memory_growth_mib <= MEMORY_GOAL_MIB
        figures = (f"{row.seconds:.2f}", f"{row.floor_seconds:.2f}", f"{row.share:.0%}")
        goal = f">= {FILE_SHARE_GOAL:.0%}, <= {MEMORY_GOAL_MIB} MiB"
        table.add_row(
            row.name, *figures, f"{row.memory_growth_mib:.0f}", goal, _mark(is_met=is_met)
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
