"""What `maas doctor` says of the runtime of own weights."""

from pathlib import Path

import pytest

from maas.doctor import Finding, _check_runtime
from maas.inference.infrastructure.runtime_endpoint import derive_token
from tests.conftest import MakeSettings
from tests.fakes.runtime import FakeWeights
from tests.integration.inference.runtime_hosts import running_host

pytestmark = pytest.mark.integration


async def look(make_settings: MakeSettings, url: str | None) -> list[Finding]:
    return await _check_runtime(make_settings(runtime={"url": url}))


async def test_a_runtime_that_answers_is_in_order(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    token = derive_token(make_settings().secret_key.get_secret_value())

    async with running_host(tmp_path, FakeWeights(), token=token) as host:
        found = await look(make_settings, host.url)

    assert [finding.level for finding in found] == ["ok"]


async def test_a_runtime_with_another_key_is_told(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    async with running_host(tmp_path, FakeWeights(), token=derive_token("another")) as host:
        (finding,) = await look(make_settings, host.url)

    assert finding.level == "error"
    assert "MAAS_SECRET_KEY" in finding.text


async def test_a_runtime_that_is_away_is_told(make_settings: MakeSettings) -> None:
    (finding,) = await look(make_settings, "http://127.0.0.1:1")

    assert finding.level == "error"
    assert "maas runtime" in finding.text


async def test_without_a_runtime_there_is_nothing_to_say(make_settings: MakeSettings) -> None:
    assert await look(make_settings, None) == []
