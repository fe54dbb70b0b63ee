"""`maas runtime` as a process, on the registry's database and artifact store."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from maas.embedded.address import find_free_port
from maas.inference.infrastructure.runtime_endpoint import derive_token, endpoint_of
from maas.model.public import VersionId
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.database import Database
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from tests.conftest import TEST_SECRET
from tests.factories.weights import make_gguf
from tests.integration.model.conftest import Registry, make_principal
from tests.integration.model.test_version_weights import make_ready

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


@contextmanager
def running(given: Mapping[str, str]) -> Iterator[str]:
    port = find_free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAAS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "maas.cli", "runtime", "--port", str(port)],
        env={**kept, **given},
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while not is_up(url):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        # Having ended in order, uvicorn ends by the signal that asked for it.
        assert process.wait(20) == -signal.SIGTERM


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str, version_id: VersionId) -> httpx.Response:
    """Ask as the API does."""
    token = derive_token(TEST_SECRET)
    endpoint = endpoint_of(url, token=token, version_id=version_id, model="any")
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(endpoint.urls["chat"], json=body, headers=endpoint.headers, timeout=50)


async def test_versions_are_found_and_what_is_no_model_is_told(
    settings_of_worker: dict[str, str], database: Database, tmp_path: Path
) -> None:
    folder, budgets = tmp_path / "artifacts", PostgresBudgets(database)
    registry = Registry(database=database, folder=folder, budgets=budgets)
    _, version_id = await make_ready(
        registry, make_principal(), path="model.gguf", content=make_gguf()
    )
    await budgets.close()
    given = {**settings_of_worker, "MAAS_STORAGE__URL": folder.as_uri()}

    with running(given) as url:
        broken = ask(url, version_id)
        missing = ask(url, VersionId(new_id()))
        files = list((tmp_path / "data" / "runtime" / "files").iterdir())

    assert (broken.status_code, broken.json()["error"]["code"]) == (503, "weights-broken")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "version-not-served")
    assert len(files) == 1
