"""The chaos harness, run as `make chaos` runs it, and read for its verdict."""

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict, all_of

ROOT = Path(__file__).resolve().parents[2]
MIN_ACKNOWLEDGED = 30_000
MIN_FAULTS = 40


def gate(_folder: Path) -> Verdict:
    output = run()
    found = re.search(r"([\d,]+) acknowledged over (\d+) faults in (\d+) s", output)
    if found is None:
        return Verdict(is_met=False, figure=output.strip()[-300:])
    acknowledged, faults = int(found[1].replace(",", "")), int(found[2])
    return all_of(
        ("PASS" in output, output.strip().splitlines()[-1]),
        (acknowledged >= MIN_ACKNOWLEDGED, f"{MIN_ACKNOWLEDGED:,} were to be acknowledged"),
        (faults >= MIN_FAULTS, f"{MIN_FAULTS} faults at least"),
    )


def finds_losses(_folder: Path) -> Verdict:
    return verdict_of(run("--prove-harness"))


def every_fault(_folder: Path) -> Verdict:
    output = run("--all")
    rows = re.findall(r"^(PASS|FAIL) (C\d+\S*) with", output, re.MULTILINE)
    broken = [name for verdict, name in rows if verdict == "FAIL"]
    return all_of(
        (len(rows) > 0, f"{len(rows)} rows of the fault matrix"),
        (not broken, f"broken: {', '.join(broken) or 'none'}"),
    )


def ten_minutes_without_redis(_folder: Path) -> Verdict:
    return verdict_of(run("--only", "C08-long"))


def verdict_of(output: str) -> Verdict:
    lines = output.strip().splitlines()
    return Verdict(is_met="FAIL" not in lines[-1] and "PASS" in lines[-1], figure=lines[-1])


def run(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *options],
        cwd=ROOT,
        env=clean_environment(NO_COLOR="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    # What explains a failure stands before the verdict; the hint at the end is for people.
    kept = [line for line in done.stdout.splitlines() if not line.startswith("Logs and the")]
    return "\n".join(kept) or done.stderr
