"""What keeps an installation in production from starting."""

import pytest

from maas.doctor import find_misconfigurations
from tests.conftest import MakeSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

# The test servers take 200 connections, three of them the superuser's, and a worker of 20 processes
# has 189.
POOLS = {"pool_size": 3, "read_pool_size": 5}


async def test_the_connections_of_api_and_worker_are_counted_together(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(database=POOLS)

    few = await find_misconfigurations(settings, worker_processes=20)
    many = await find_misconfigurations(settings, worker_processes=21)

    assert few == []
    (finding,) = many
    assert "open 8 connections" in finding.text
    assert "--concurrency 21 another 198, PostgreSQL takes 197" in finding.text


async def test_those_kept_for_the_superuser_are_not_ours(make_settings: MakeSettings) -> None:
    settings = make_settings(database=POOLS | {"pool_size": 4})

    (finding,) = await find_misconfigurations(settings, worker_processes=20)

    assert finding.is_lasting
