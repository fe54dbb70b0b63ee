"""`make fuzz`: schemathesis over the whole OpenAPI document, as every role, on a real platform."""

import argparse
import math
import secrets
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fuzz.people import ROLES
from tests.fuzz.report import show
from tests.fuzz.stage import Stage, build_stage, make_admin, running_platform
from tests.fuzz.tally import Tally
from tests.fuzz.turn import Order, take_turn
from tests.fuzz.watch import Watch

LOOK_SECONDS: Final = 0.5
TELL_SECONDS: Final = 30.0
"""Where there is no terminal to draw a bar on."""

_asked: "Synchronized[int] | None" = None


def main() -> int:
    options = _options()
    # Whoever ends it ends the platform that it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    console.print(f"seed {options.seed}: the same seed asks the same")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        # The servers run as `nobody` where root starts them.
        Path(folder).chmod(0o755)
        with running_platform(Path(folder)) as (platform, upstream):
            stage = build_stage(platform, upstream)
            watch = Watch(platform)
            began = time.monotonic()
            tally = _ask(stage, options, platform.data_dir, watch, console)
            seconds = time.monotonic() - began
            figures = watch.settle()
    return show(console, tally, figures, stage=stage, options=options, seconds=seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="of all roles together")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES), metavar="ROLE")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATH", help="as OpenAPI has it")
    parser.add_argument("--workers", type=int, default=2, help="roles that ask at a time")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after so long, whatever is left"
    )
    parser.add_argument(
        "--slow", type=float, default=3.0, metavar="SECONDS", help="no answer may take longer"
    )
    return parser.parse_args()


def _ask(
    stage: Stage, options: argparse.Namespace, data_dir: Path, watch: Watch, console: Console
) -> Tally:
    share = -(-options.requests // len(options.roles))
    # Forked: what they need is here already, and seconds to import.
    context = get_context("fork")
    asked: Synchronized[int] = context.Value("q", 0)
    orders = [
        Order(
            url=stage.url,
            roles=(role,),
            requests=share,
            seed=options.seed + number,
            document=stage.document,
            seeds=stage.seeds,
            secrets=stage.secrets,
            keeper=stage.keeper,
            seconds=options.minutes * 60 * options.workers / len(options.roles),
            only=options.only,
            slow_seconds=options.slow,
        )
        for number, role in enumerate(options.roles)
    ]
    total, told = Tally(), time.monotonic()
    with ProcessPoolExecutor(
        options.workers, mp_context=context, initializer=_share, initargs=(asked,)
    ) as pool:
        # All are forked by the first of these, before anything here runs in a thread.
        waiting = {pool.submit(_turn, order, data_dir) for order in orders}
        with _progress(console) as progress:
            task = progress.add_task("requests", total=share * len(orders))
            while waiting:
                watch.look(asked.value / (share * len(orders)))
                progress.update(task, completed=asked.value)
                if not console.is_terminal and time.monotonic() >= told + TELL_SECONDS:
                    told = time.monotonic()
                    console.print(f"{asked.value:,} requests")
                done = {each for each in waiting if each.done()}
                for each in done:
                    total.merge(each.result())
                waiting -= done
                time.sleep(LOOK_SECONDS)
            progress.update(task, completed=asked.value)
    return total


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _share(asked: "Synchronized[int]") -> None:
    """Tell a process of the pool where to count."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    global _asked  # noqa: PLW0603  what is shared can only be handed to a process as it starts
    _asked = asked


def _count(more: int) -> None:
    if _asked is not None:
        with _asked.get_lock():
            _asked.value += more


def _turn(order: Order, data_dir: Path) -> Tally:
    return take_turn(order, partial(make_admin, data_dir), _count)


if __name__ == "__main__":
    sys.exit(main())
