"""Streams while processes are killed, callers hang up and upstreams fail: does the bill add up?

Our ledger and the trail are held against the upstream's own books and against what callers heard.
"""

import secrets
from pathlib import Path

from tests.acceptance import speed
from tests.acceptance.verdict import Verdict, all_of
from tests.streams.play import Game, play

MIN_SENT_A_SECOND = 10
MIN_MOMENTS_A_SECOND = 5
"""Fewer would tell little; 2 busy cores do several times as many."""

LONG = Game(seed=0, seconds=60, kills=(0.3, 0.6))
SHORT = Game(seed=0, seconds=15, kills=(0.5,))
FORGETFUL = Game(seed=0, seconds=10, kills=(), forgets=0.02)


def add_up(_folder: Path) -> Verdict:
    return _judge(LONG)


def add_up_shortly(_folder: Path) -> Verdict:
    return _judge(SHORT)


def are_proven(_folder: Path) -> Verdict:
    """Have settlements forgotten, and see that it is found."""
    report = play(_with_seed(FORGETFUL))
    found = report.broken["heard"]
    return all_of((bool(found), f"{len(found)} forgotten settlements found"))


def stay_as_large(_folder: Path) -> Verdict:
    return speed.judge("--only", "growth")


def cost_little(_folder: Path) -> Verdict:
    return speed.judge("--only", "gateway")


def _judge(game: Game) -> Verdict:
    report = play(_with_seed(game))
    figures = report.figures
    broken = [line for line in report.lines() if line.startswith("BROKEN")]
    estimates = [f"{name}: {figure}" for name, figure in figures.items() if "estimated" in name]
    kinds = ("hung up", "without max_tokens", "over 1 MiB", "below a micro-unit")
    return all_of(
        (not broken, f"{len(broken)} things wrong {' / '.join(broken[:3])}".strip()),
        (
            figures["sent"] >= MIN_SENT_A_SECOND * game.seconds,
            f"{figures['sent']:,} calls of {figures['callers']} callers, {figures['kills']} kills",
        ),
        (figures["settled to the token"] > 0, f"{figures['settled to the token']:,} to the token"),
        *((figures[kind] > 0, f"{figures[kind]:,} {kind}") for kind in kinds),
        (
            figures["moments"] >= MIN_MOMENTS_A_SECOND * game.seconds,
            f"never above a limit in {figures['moments']:,} moments",
        ),
        (bool(estimates), f"{'; '.join(estimates)}; seed {figures['seed']}"),
    )


def _with_seed(game: Game) -> Game:
    return Game(
        seed=secrets.randbelow(1_000_000),
        seconds=game.seconds,
        kills=game.kills,
        forgets=game.forgets,
    )
