"""Clients that applications really have, against the platform on a port of this machine.

The scripted upstream answers from both its sides, as OpenAI's API and as Anthropic's.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from pytest_socket import socket_allow_hosts

from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from tests.clients.comply import comply
from tests.clients.deploying import Face, deploy
from tests.clients.loopback import HERE, run_module
from tests.clients.official import try_scripted
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson
from tests.e2e.inference.gateway import served
from tests.upstream.desk import Desk
from tests.upstream.server import Upstream, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def _reaching_nothing_but_this_machine(socket_enabled: None) -> None:
    """Clients like to call home. The databases' sockets in folders stay open to us."""
    socket_allow_hosts(HERE, allow_unix_socket=True)


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with serving(Upstream(Desk())) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def settings(make_settings: MakeSettings, upstream: str) -> Settings:
    return make_settings(outgoing={"allowed_private_targets": (upstream.removeprefix("http://"),)})


@pytest.fixture
async def client(settings: Settings, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the platform in this loop, for clients that open connections."""
    async with (
        served(settings) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False
        ) as client,
    ):
        yield client


@pytest.fixture
async def face(client: httpx.AsyncClient, make_person: MakePerson, upstream: str) -> Face:
    operator = await make_person("olga", roles=("admin", "platform_admin"))

    def prepare() -> Face:
        with httpx.Client(
            base_url=client.base_url, headers=operator.headers, timeout=20, trust_env=False
        ) as root:
            return deploy(root, upstream)

    return await asyncio.to_thread(prepare)


async def test_openais_own_client_finds_everything_as_it_knows_it(face: Face) -> None:
    await try_scripted(face, blocks=False)
    await try_scripted(face, blocks=True)


async def test_clients_of_others_are_answered_and_the_suite_of_conformity_keeps_its_score(
    face: Face,
) -> None:
    names = (face.openai, face.anthropic, face.vectors)

    # Each is a process, which takes seconds to load.
    langchain, litellm, openai, anthropic = await asyncio.gather(
        asyncio.to_thread(run_module, "tests.clients.langchain_smoke", *names, face=face),
        asyncio.to_thread(run_module, "tests.clients.litellm_smoke", *names, face=face),
        asyncio.to_thread(comply, face, face.openai),
        asyncio.to_thread(comply, face, face.anthropic),
    )

    assert langchain.returncode == 0, langchain.stderr[-3_000:]
    assert litellm.returncode == 0, litellm.stderr[-3_000:]
    # The figures stand in the README. What is skipped wants a model's name that it knows to reason.
    assert (str(openai), openai.wrong) == ("9 of 9", [])
    assert (str(anthropic), anthropic.wrong) == ("8 of 8, 1 skipped", [])
