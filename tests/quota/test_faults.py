"""Budgets while callers and servers are killed: the short form, and what it must be able to find.

The long one is `make chaos ARGS="--only quota"`.
"""

import random
from typing import Final

import pytest

from tests.quota.book import Booked, Call
from tests.quota.faults import FAULTS
from tests.quota.harness import Game, play
from tests.quota.verify import Row, judge
from tests.servers import Servers

pytestmark = pytest.mark.integration

BY_NAME: Final = {fault.name: fault for fault in FAULTS}
SHORT: Final = ("callers killed", "PostgreSQL killed", "connections ended")
FULL, HALF = Booked(1_000, 3_000_000), Booked(500, 1_500_000)


# It starts servers and processes: some 15 s, and several times that on a busy machine.
@pytest.mark.timeout(180)
def test_200_callers_stay_within_every_limit_unless_nothing_checks_it(
    servers: Servers,
) -> None:
    order = random.Random()  # noqa: S311  any order; the seed is told with a failure
    seed = order.randrange(1_000_000)
    random.Random(seed).shuffle(names := list(SHORT))  # noqa: S311  likewise
    report = play(
        Game(
            seed=seed,
            seconds=3,
            faults=[BY_NAME[name] for name in names],
            tenants=1,
            holds=250,
            callers=100,
            lease_seconds=1.5,
            with_worker=False,
            fsync=False,
            then_unchecked=True,
        ),
        like=servers,
    )

    assert report.is_whole, "\n".join(report.lines())


def make_call(**known: object) -> Call:
    call = Call("r", FULL, HALF, "key", answer="granted", hold_id="h", granted=FULL, lease_until=10)
    for name, value in known.items():
        setattr(call, name, value)
    return call


def make_row(booked: Booked = FULL, *, is_estimated: bool = False, **known: object) -> Row:
    facts = {"hold_id": "h", "is_overrun": False, "requests": 1, "settled_at": 11.0, **known}
    return Row(booked=booked, is_estimated=is_estimated, **facts)  # type: ignore[arg-type]  # facts


@pytest.mark.parametrize(
    ("call", "row"),
    [
        (make_call(ended_by="settle", used=HALF, told_at=9), None),
        (make_call(ended_by="settle", used=HALF, told_at=9), make_row(FULL)),
        (make_call(ended_by="settle", used=HALF, told_at=9), make_row(FULL, is_estimated=True)),
        (make_call(ended_by="settle", used=HALF, told_at=9), make_row(HALF, is_overrun=True)),
        (make_call(ended_by="settle", used=HALF, told_at=9), make_row(HALF, requests=2)),
        (make_call(ended_by="settle", used=HALF, told_at=9), make_row(HALF, hold_id="another")),
        (make_call(ended_by="release", told_at=9), make_row(FULL)),
        (make_call(), None),
        (make_call(), make_row(HALF, is_estimated=True)),
        (make_call(), make_row(FULL, is_estimated=True, settled_at=9.0)),
        (make_call(progress=HALF, is_progress_told=True), make_row(FULL, is_estimated=True)),
        (make_call(granted=Booked(400, 1_200_000)), make_row(is_estimated=True)),
        (make_call(answer="refused", granted=None), make_row(FULL, is_estimated=True)),
        (make_call(answer=None, granted=None), make_row(FULL)),
        (make_call(answer=None, granted=None), make_row(Booked(5, 15_000), is_estimated=True)),
    ],
)
def test_what_a_caller_was_told_otherwise_is_found(call: Call, row: Row | None) -> None:
    assert list(judge(call, row))


@pytest.mark.parametrize(
    ("call", "row"),
    [
        (make_call(ended_by="settle", used=HALF, told_at=9), make_row(HALF)),
        (make_call(ended_by="settle", used=HALF), make_row(HALF)),
        (make_call(ended_by="settle", used=HALF), make_row(FULL, is_estimated=True)),
        (make_call(ended_by="settle", used=HALF, told_at=12), make_row(FULL, is_estimated=True)),
        (make_call(ended_by="release", told_at=9), None),
        (make_call(ended_by="release"), make_row(FULL, is_estimated=True)),
        (make_call(), make_row(FULL, is_estimated=True)),
        (make_call(progress=HALF), make_row(FULL, is_estimated=True)),
        (make_call(progress=HALF, is_progress_told=True), make_row(HALF, is_estimated=True)),
        (make_call(answer="refused", granted=None), None),
        (make_call(answer=None, granted=None), make_row(HALF, is_estimated=True)),
    ],
)
def test_what_a_killed_caller_cannot_know_is_no_finding(call: Call, row: Row | None) -> None:
    assert list(judge(call, row)) == []
