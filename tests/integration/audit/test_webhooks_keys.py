"""Webhooks where the key that would seal their secrets was retired."""

import httpx
import pytest

from maas.shared.infrastructure.sealing_ring import RingKey
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.conftest import FakeAuthenticator
from tests.integration.audit.helpers import Superuser

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60), pytest.mark.usefixtures("clean")]

WEBHOOK = {"name": "On call", "url": "https://alerts.example.com/hook"}


@pytest.fixture
def authenticator() -> FakeAuthenticator:
    return FakeAuthenticator(permissions=frozenset({"audit:read", "alert:write"}))


async def test_a_secret_that_would_lie_under_a_retired_key_is_refused_by_its_own_code(
    client: httpx.AsyncClient, settings: Settings, superuser: Superuser
) -> None:
    derived = RingKey.derived(settings.secret_key.get_secret_value())
    await superuser.execute("INSERT INTO sealing_retired_keys VALUES ($1, now())", derived.id)

    refused = await client.post("/api/v1/audit/webhooks", json=WEBHOOK)

    assert (refused.status_code, refused.json()["code"]) == (503, "sealing-key-retired")
    assert refused.headers["Retry-After"] == "1"
    assert await superuser.fetchval("SELECT count(*) FROM audit_webhooks") == 0
