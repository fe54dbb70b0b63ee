"""`make load`: more than there is room for, clients that dawdle, and stops in mid-work.

make load                            all of it, in about three minutes on two quiet cores
make load ARGS="--only overload"     one part: overload, slow or stop
make load ARGS="--seconds 600"       as long under each load
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from rich.console import Console

from tests.load import overload, slowness, stopping
from tests.load.report import Row, show

SECONDS: Final = 12.0
TERMINATED: Final = 143
console = Console(highlight=False, soft_wrap=True)


class Part(Protocol):
    def __call__(
        self, folder: Path, *, seconds: float, tell: Callable[[str], None]
    ) -> list[Row]: ...


PARTS: Final[Mapping[str, Part]] = {
    "overload": overload.measure,
    "slow": slowness.measure,
    "stop": stopping.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="parts, with commas between")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="under each load")
    given = parser.parse_args()
    # Whoever ends this ends what it started as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    folder = Path(tempfile.mkdtemp(prefix="maas-load-"))
    # The servers of a platform that root starts run as `nobody` and must pass through.
    folder.chmod(0o711)
    rows: list[Row] = []
    try:
        with console.status("starting") as status:
            for name in given.only.split(",") if given.only else PARTS:
                rows += PARTS[name](folder, seconds=given.seconds, tell=status.update)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(rows, console)
    missed = [row.name for row in rows if not row.is_met]
    verdict = "[red]FAIL[/]" if missed else "[green]PASS[/]"
    console.print(f"{verdict} {len(rows) - len(missed)} met, missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
