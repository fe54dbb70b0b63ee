"""`maas up`, run by root in a folder where somebody else has put modules of his own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest
from pydantic import SecretStr

from bench.platform import run_platform
from maas.embedded.endpoints import find_running
from maas.shared.infrastructure.database import asyncpg_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PLANTED = (
    *("alembic", "asyncpg", "celery", "celeryconfig", "httptools", "json", "kombu", "maas"),
    *("multiprocessing", "obstore", "psutil", "redis", "structlog", "uvicorn", "uvloop"),
)
FLUSH_SECONDS = 30


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="maas-planted-") as name:
        folder = Path(name)
        # The private servers run as another user where the tests run as root.
        folder.chmod(0o711)
        yield folder


async def test_no_process_imports_from_the_current_folder(folder: Path) -> None:
    cwd, loot = folder / "cwd", folder / "loot"
    cwd.mkdir()
    loot.mkdir()
    for name in PLANTED:
        cwd.joinpath(f"{name}.py").write_text(f"open({str(loot / name)!r}, 'w').close()\n")

    with run_platform(folder / "data", "--workers", "2", cwd=cwd) as platform:
        platform.sign_in()
        await wait_until_flushed(platform.data_dir)

    assert [path.name for path in loot.iterdir()] == []


async def wait_until_flushed(data_dir: Path) -> None:
    """Wait until beat, broker and worker have done something together."""
    endpoints = find_running(data_dir)
    assert endpoints is not None
    url = endpoints.environment()["MAAS_DATABASE__SYSTEM_URL"]
    connection = await asyncpg.connect(
        **asyncpg_arguments(DatabaseSettings(url=SecretStr(url)), url=url, role=None)
    )
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            while True:
                if await connection.fetchval("SELECT count(*) FROM audit_log"):
                    return
                await asyncio.sleep(0.1)
    finally:
        await connection.close()
