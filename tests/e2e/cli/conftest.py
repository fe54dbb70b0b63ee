"""`maas` as a process, on this worker's servers."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.conftest import TEST_SECRET, WorkerDatabase
from tests.servers import Servers

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def settings_of_worker(
    servers: Servers, worker_database: WorkerDatabase, worker_number: int, tmp_path: Path
) -> dict[str, str]:
    def url(role: str) -> str:
        return servers.database_url(worker_database.name, role)

    return {
        "MAAS_SECRET_KEY": TEST_SECRET,
        "MAAS_DATA_DIR": str(tmp_path / "data"),
        "MAAS_DATABASE__URL": url("maas_app"),
        "MAAS_DATABASE__OWNER_URL": url("maas_owner"),
        "MAAS_DATABASE__SYSTEM_URL": url("maas_system"),
        "MAAS_REDIS__URL": servers.redis_url(worker_number),
    }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `maas` in an empty folder, with these variables and no others of ours."""

    def run_maas(
        *arguments: str, given: Mapping[str, str], text: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAAS_")}
        return subprocess.run(
            [sys.executable, "-m", "maas.cli", *arguments],
            check=False, capture_output=True, text=True, input=text, cwd=tmp_path, timeout=50,
            env={**kept, **given, "COLUMNS": "200"},
        )  # fmt: skip

    return run_maas
