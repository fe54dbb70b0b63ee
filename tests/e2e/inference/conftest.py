"""A person who may do everything in a tenant, and somebody who runs the platform."""

from collections.abc import AsyncIterator

import httpx
import pytest

from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson, Person
from tests.e2e.inference.gateway import SUPPLIER_KEY, Gateway, opened
from tests.upstream.desk import Desk
from tests.upstream.server import Upstream, serving


@pytest.fixture
async def ada(make_person: MakePerson) -> Person:
    return await make_person("ada")


@pytest.fixture
async def api(client: httpx.AsyncClient, ada: Person) -> httpx.AsyncClient:
    client.headers.update(ada.headers)
    client.base_url = httpx.URL("http://maas.test/api/v1/")
    return client


@pytest.fixture
async def supplier() -> AsyncIterator[tuple[Desk, int]]:
    """Serve a supplier that does as it is told, and tell its port."""
    upstream = Upstream(Desk(keys=frozenset({SUPPLIER_KEY})))
    async with serving(upstream) as port:
        yield upstream.desk, port


@pytest.fixture
def calling_settings(make_settings: MakeSettings, supplier: tuple[Desk, int]) -> Settings:
    return make_settings(outgoing={"allowed_private_targets": (f"127.0.0.1:{supplier[1]}",)})


@pytest.fixture
async def gateway(
    calling_settings: Settings, supplier: tuple[Desk, int], make_person: MakePerson
) -> AsyncIterator[Gateway]:
    """Serve the application on a port, with the supplier connected and nothing deployed yet."""
    root = await make_person("root", roles=("admin", "platform_admin"))
    async with opened(calling_settings, supplier[0], supplier[1], root) as gateway:
        yield gateway
