"""What was taken away is refused by two real processes, however Redis fares; the small edition.

`make acceptance ARGS="--only revocation"` runs it at full size.
"""

from collections.abc import Iterator, Sequence

import pytest

from maas.shared.infrastructure.database import Database
from tests.amounts import IS_FULL
from tests.conftest import WorkerDatabase
from tests.key_kinds import KEY_KINDS
from tests.pair import WITHOUT_LIMITS, DatabaseUrls, Pair, running_pair
from tests.revoking import KINDS, Kind, Pace, Tally, take_away
from tests.servers import Servers
from tests.stage import staged

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

PACE = Pace(linger_seconds=1.0, outage_seconds=1.0, pause_seconds=0.1)
SHOWN = ("calm", "old AOF", "Redis dead", "one cut off") if IS_FULL else ("old AOF", "one cut off")
REQUESTS = 100
TRIES = 3


@pytest.fixture
def pair(servers: Servers, worker_database: WorkerDatabase, database: Database) -> Iterator[Pair]:
    urls = DatabaseUrls(
        app=servers.database_url(worker_database.name, "maas_app"),
        owner=servers.database_url(worker_database.name, "maas_owner"),
        system=servers.database_url(worker_database.name, "maas_system"),
    )
    with running_pair(urls, WITHOUT_LIMITS) as pair:
        yield pair


async def test_nobody_is_let_in_again(pair: Pair) -> None:
    await take_away_in_all(pair, KINDS)


async def test_no_key_is_let_in_again(pair: Pair) -> None:
    await take_away_in_all(pair, KEY_KINDS)


async def take_away_in_all(pair: Pair, kinds: Sequence[Kind]) -> None:
    tallies: dict[str, Tally] = {}

    async with staged(pair) as stage:
        for name in SHOWN:
            tallies[name] = await take_away(
                stage, name, kinds=kinds, each=1, pace=PACE, asked=REQUESTS
            )
        tries = 1
        # A machine too busy to restart Redis in time shows nothing.
        while not tallies["old AOF"].revived and tries < TRIES:
            tries += 1
            tallies["old AOF"] += await take_away(
                stage, "old AOF", kinds=kinds, each=1, pace=PACE, asked=REQUESTS
            )

    for name, tally in tallies.items():
        assert tally.accepted == [], name
        assert not tally.odd, name
        assert tally.wrongly_refused == [], name
        assert tally.bystanders[401] == tally.bystanders[500] == 0, name
        assert tally.acts.keys() == {kind.name for kind in kinds}, name
        assert tally.asked >= REQUESTS, name
    assert tallies["old AOF"].revived > 0, "the old file had nothing to revive anybody with"
    assert pair.dead() == []
