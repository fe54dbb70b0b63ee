"""`maas login` and `maas model` against the running application, over a real socket."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from maas.cli import app
from maas.main import create_app
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson
from tests.factories.accounts import PASSWORD
from tests.fakes.folders import contents, fill

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MIB = 1024 * 1024
LARGE = os.urandom(17 * MIB + 5)
"""More than goes up in one request."""

FILES = {"config.json": b'{"a": 1}', "weights/model 7b.bin": LARGE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str


Maas = Callable[..., Awaitable[Done]]


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(storage={"part_bytes": MIB})


@pytest.fixture
async def url(settings: Settings, database: Database) -> AsyncIterator[str]:
    """Serve the application on a port of its own."""
    config = uvicorn.Config(create_app(settings), log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110  uvicorn sets no event
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.fixture
async def maas(url: str, make_person: MakePerson, tmp_path: Path) -> Maas:
    """Run a command as somebody with a home of their own."""
    await make_person("ada")
    home = {
        "MAAS_API_URL": url,
        "MAAS_API_KEY": "",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "COLUMNS": "200",
    }

    async def run(*arguments: str, text: str = "") -> Done:
        # In a thread, with a loop of its own, beside the one that serves.
        done = await asyncio.to_thread(
            lambda: CliRunner().invoke(app, arguments, input=text, env=home)
        )
        # The server's own lines come in between, for it runs in this process.
        said = [line for line in done.stdout.splitlines() if "request_served" not in line]
        return Done(exit_code=done.exit_code, stdout="\n".join(said), stderr=done.stderr)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "bot", FILES)


async def sign_in(maas: Maas) -> Done:
    return await maas("login", "--username", "ada", "--password-stdin", text=PASSWORD)


async def test_the_journey(maas: Maas, folder: Path, url: str, tmp_path: Path) -> None:
    signed_in = await sign_in(maas)
    pushed = await maas("model", "push", str(folder), "--alias", "production")
    again = await maas("model", "push", str(folder), "--version", "1.0.0")
    same = await maas("model", "push", str(folder), "--alias", "production")
    models = await maas("model", "ls", "--json")
    versions = await maas("model", "ls", "bot")
    pulled = await maas("model", "pull", "bot@production", str(tmp_path / "here"))
    moved = await maas("model", "alias", "bot", "staging", "1.0.0", "--reason", "Why not.")
    history = await maas("model", "alias", "bot", "staging", "--history")

    assert signed_in.exit_code == 0, signed_in.stderr
    assert f"Signed in at {url}" in signed_in.stdout
    assert pushed.exit_code == 0, pushed.stderr
    assert pushed.stdout == "bot 1.0.0 is ready: 17.8 MB, 2 of 2 files sent."
    assert "production is 1.0.0 now" in pushed.stderr
    assert again.stdout == "bot 1.0.0 is ready: 17.8 MB, 0 of 2 files sent."
    assert (same.exit_code, same.stdout) == (0, again.stdout), same.stderr
    assert "production is 1.0.0 already" in same.stderr
    assert [each["name"] for each in json.loads(models.stdout)] == ["bot"], models.stderr
    assert "1.0.0" in versions.stdout
    assert "production" in versions.stdout
    assert pulled.exit_code == 0, pulled.stderr
    assert contents(tmp_path / "here") == FILES
    assert moved.stdout == "bot@staging is 1.0.0 now."
    assert "Why not." in history.stdout


async def test_keys_and_what_cannot_be_done(maas: Maas, url: str, tmp_path: Path) -> None:
    def kept() -> str:
        keys = json.loads((tmp_path / "config" / "maas" / "keys.json").read_text())
        return str(keys[url]["key"])

    async def ask(key: str) -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = {"Authorization": f"Bearer {key}"}
            return (await client.get(f"{url}/api/v1/models", headers=headers)).status_code

    nobody = await maas("model", "ls")
    await sign_in(maas)
    first = kept()
    again = await sign_in(maas)
    missing = await maas("model", "pull", "nothing", str(tmp_path / "here"))
    wrong = await maas("login", "--username", "ada", "--password-stdin", text="not-it")
    odd = await maas("model", "push", "anywhere", "--alias", "a", "--no-ready")
    both = await maas("model", "push", "anywhere", "--new", "--version", "1.0.0")
    statuses = await ask(first), await ask(kept())
    left = await maas("logout")
    gone = await maas("model", "ls")

    assert again.exit_code == 0, again.stderr
    assert statuses == (401, 200), "signing in again ends the earlier key"
    assert [each.exit_code for each in (nobody, missing, wrong, odd, both, left, gone)] == [
        *(1, 1, 1, 2, 2, 0, 1)
    ]
    assert f"There is no key for {url}" in nobody.stderr
    assert "There is no model nothing in your tenant that you may read." in missing.stderr
    assert "[invalid-credentials]" in wrong.stderr
    assert f"There is no key for {url}" in gone.stderr
