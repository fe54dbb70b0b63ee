"""MLflow's server beside ours: on the same PostgreSQL, from an environment of its own.

It is told to keep to its registry: one worker as ours is one process, no jobs, no access log, and
the faster loop and parser, which it would take only where somebody installed them.
"""

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import psutil

from bench.environments import install
from bench.platform import RunningPlatform, free_port, wait_until_answering
from maas.embedded.endpoints import Endpoints, find_running
from maas.embedded.postgres import PORT, SUPERUSER

VERSION: Final = "3.17.2"
PACKAGES: Final = (f"mlflow=={VERSION}", "psycopg2-binary", "uvloop", "httptools")
NAME: Final = "mlflow"
STOP_SECONDS: Final = 15
READY_SECONDS: Final = 180
"""It makes its tables first, migration by migration."""

API: Final = "/api/2.0/mlflow/registered-models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where PostgreSQL listens, and the password of MLflow's own role."""

    host: str
    password: str

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://{NAME}:{self.password}@/{NAME}?host={self.host}&port={PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowServer:
    """A server that answers; `database` is its own in the PostgreSQL of the platform."""

    port: int
    process: psutil.Process
    database: Database

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        where = self.database
        return await asyncpg.connect(
            host=where.host, port=PORT, user=NAME, password=where.password, database=NAME
        )


@contextmanager
def run_mlflow(platform: RunningPlatform, folder: Path) -> Iterator[MlflowServer]:
    """Run MLflow's server until the block ends, on a database of its own beside the platform's."""
    environment = install(f"{NAME}-{VERSION}", PACKAGES)
    running = find_running(platform.data_dir)
    if running is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    database = asyncio.run(_make_database(running))
    port = free_port()
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(environment / "bin" / "mlflow"), "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", database.url),
                *("--default-artifact-root", str(folder / "mlflow")),
                *("--uvicorn-opts", "--no-access-log --log-level warning"),
            ],
            env=_environment(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until_answering(f"http://127.0.0.1:{port}/health", process, seconds=READY_SECONDS)
        yield MlflowServer(port=port, process=psutil.Process(process.pid), database=database)
    finally:
        # Its server is a child that would outlive it: the whole session is told.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS)


async def _make_database(running: Endpoints) -> Database:
    host, password = str(running.folder.postgres_sockets), secrets.token_urlsafe(24)
    connection = await asyncpg.connect(
        host=host,
        port=PORT,
        user=SUPERUSER,
        password=running.credentials.superuser_password,
        database="postgres",
    )
    try:
        await connection.execute(f"CREATE ROLE {NAME} LOGIN PASSWORD '{password}'")
        await connection.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
    finally:
        await connection.close()
    return Database(host=host, password=password)


def _environment(environment: Path) -> dict[str, str]:
    """Take what a program needs, and keep it from telling anybody that it runs."""
    return {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", str(environment)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
