"""Budgets under kills and restarts, run as `make chaos` runs them, and what they cost."""

import re
from pathlib import Path

from tests.acceptance import chaos, speed
from tests.acceptance.verdict import Verdict, all_of

MIN_FAULTS = 6
MIN_MOMENTS = 1_000
MIN_SETTLED = 3_000
"""Fewer would tell little; a machine of 2 busy cores does several times as much in the minute."""


def hold_under_faults(_folder: Path) -> Verdict:
    output = chaos.run("--only", "quota")
    verdict = output.strip().splitlines()[-1]
    found = re.search(r"(\d+) faults in \d+ s, ([\d,]+) moments.*settled ([\d,]+) calls", verdict)
    if found is None:
        return Verdict(is_met=False, figure=output.strip()[-300:])
    faults, moments, settled = (int(figure.replace(",", "")) for figure in found.groups())
    usable = re.search(r"usable: ([\d.]+%)", output)
    return all_of(
        ("PASS" in verdict, f"never above a limit in {moments:,} moments"),
        (moments >= MIN_MOMENTS, f"{MIN_MOMENTS:,} to be looked at"),
        (faults >= MIN_FAULTS, f"{faults} faults"),
        (settled >= MIN_SETTLED, f"{settled:,} calls settled as they were told, no hold left"),
        (usable is not None, f"{usable[1] if usable else 'nothing'} usable"),
    )


def are_proven(_folder: Path) -> Verdict:
    return chaos.verdict_of(chaos.run("--only", "quota", "--prove-harness"))


def cost_little(_folder: Path) -> Verdict:
    return speed.judge("--only", "quota")


def keys_cost_little(_folder: Path) -> Verdict:
    return speed.judge("--only", "requests")


def usage_is_told_fast(_folder: Path) -> Verdict:
    return speed.judge("--only", "usage")
