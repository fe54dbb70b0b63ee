"""`maas serve`, `maas worker` and `maas beat`: the processes of an installation, one by one."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import psutil
import typer
import uvicorn

from maas.commands.keys import refuse_lost_keys
from maas.embedded.address import check_free
from maas.embedded.errors import PortTakenError
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.worker_connections import WORKER_PROCESSES
from maas.terminal import fail, load, read_settings, seconds_to_finish

Host = Annotated[
    str | None, typer.Option(envvar="MAAS_HOST", help="Address to listen on [127.0.0.1].")
]
Port = Annotated[
    int | None, typer.Option(envvar="MAAS_PORT", min=1, max=65535, help="Port [8000].")
]


def serve(
    *,
    host: Host = None,
    port: Port = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
) -> None:
    """Serve the API."""
    if workers is not None:
        # Also for the processes to come, which read the settings themselves.
        os.environ["MAAS_SERVER__WORKERS"] = str(workers)
    settings = read_settings()
    try:
        check_free(host or settings.server.host, port or settings.server.port)
    except PortTakenError as exc:
        raise fail(f"{exc.message} {exc.hint}") from None
    refuse_lost_keys(settings)
    _refuse_unfit_servers(settings)
    folder = _share_metrics(settings)
    try:
        uvicorn.run(
            "maas.main:make_app",
            factory=True,
            host=host or settings.server.host,
            port=port or settings.server.port,
            workers=settings.server.workers,
            loop="uvloop",
            http=load("maas.shared.interface.http_protocol:HeaderTimeoutProtocol"),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=seconds_to_finish(settings),
            backlog=1024,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_unfit_servers(settings: Settings, *, worker_processes: int = WORKER_PROCESSES) -> None:
    """Stop before the first request where production could lose what it promises to keep."""
    if settings.environment != "production":
        return
    find = load("maas.doctor:find_misconfigurations")
    findings = asyncio.run(find(settings, worker_processes=worker_processes))
    if findings:
        raise fail("\n".join(finding.text for finding in findings))


def _share_metrics(settings: Settings) -> Path:
    """Give the API's processes one folder to count in, so that /metrics is true for all of them."""
    parent = settings.data_dir if settings.data_dir and settings.data_dir.is_dir() else None
    for left in parent.glob("metrics-*") if parent else ():
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"metrics-{os.getpid()}-", dir=parent))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return folder


def worker(
    *,
    concurrency: Annotated[int, typer.Option(min=1, help="Processes.")] = WORKER_PROCESSES,
) -> None:
    """Run the Celery worker: it flushes the audit trail, among other tasks."""
    settings = read_settings()
    refuse_lost_keys(settings)
    _refuse_unfit_servers(settings, worker_processes=concurrency)
    celery = load("maas.worker:app")
    celery.worker_main(
        [
            "worker",
            "--loglevel",
            settings.effective_log_level,
            "--concurrency",
            str(concurrency),
            "--without-gossip",
            "--without-mingle",
        ]
    )


def beat() -> None:
    """Run Celery beat, the clock of the recurring tasks; exactly one of it."""
    settings = read_settings()
    celery = load("maas.worker:app")
    # The schedule is all in code, so nothing is kept on disk that a crash could tear.
    celery.start(
        [
            "beat",
            "--loglevel",
            settings.effective_log_level,
            "--scheduler",
            "celery.beat:Scheduler",
            "--pidfile=",
        ]
    )
