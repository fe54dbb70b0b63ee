"""The Celery app: `celery -A maas.worker worker`, and `... beat`.

Every delivery may happen twice and any may be lost: tasks are repeatable ticks, never the work.
"""

import logging
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, Final

from celery import Celery, bootsteps
from celery.loaders.app import AppLoader
from celery.signals import (
    beat_init,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from celery.worker.components import Pool
from kombu.transport import redis as redis_transport
from typing_extensions import override

from maas.audit.flush_wiring import sweep_for_ever
from maas.bootstrap import open_digests
from maas.shared.infrastructure.background import BackgroundLoop
from maas.shared.infrastructure.logging import configure_logging
from maas.shared.infrastructure.reloading import SettingsWatch
from maas.shared.infrastructure.settings import Settings, load_settings
from maas.shared.infrastructure.task_loop import TaskLoop
from maas.worker_schedule import configuration
from maas.worker_services import TaskResources, make_services, open_resources

TALKATIVE: Final = ("celery.app.trace", "celery.beat", "celery.worker.strategy")
"""Loggers with lines for every tick: three a second, day and night, that tell nothing."""


class SteadyQoS(redis_transport.QoS):
    """Kombu's bookkeeping of unacknowledged messages, made to outlive a lost broker.

    When the connection is lost while a task runs, Celery 5.7 closes it twice; the second time Kombu
    5.7 would hand the task's message back over a connection that is gone, and the `AttributeError`
    ends the worker. The message is left to the visibility time-out instead.
    """

    @override
    def restore_unacked_once(self, stderr: Any = None) -> None:
        if getattr(self.channel.connection, "client", None) is not None:
            super().restore_unacked_once(stderr)


class InstalledLoader(AppLoader):
    """Imports what is installed; Celery's own puts the current folder before everything else."""

    @override
    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        return self.import_module(module, package=package)

    @override
    def find_module(self, module: str) -> Any:
        return self.import_module(module)


class WorkerApp(Celery):
    """Celery, with the services that tasks look up by name, and what runs beside the tasks."""

    services: Mapping[str, object]
    beside: Sequence[BackgroundLoop]


class BesideStep(bootsteps.StartStopStep):
    """Runs the worker's background loops in its parent process.

    They start once the first children are forked, and before the broker is asked for anything.
    """

    requires: tuple[type[bootsteps.Step] | str, ...] = (Pool,)

    @override
    def start(self, parent: Any) -> None:
        for loop in vars(parent.app)["beside"]:
            loop.start()

    @override
    def close(self, parent: Any) -> None:
        """End them while the tasks still finish: those may take much longer."""
        for loop in vars(parent.app)["beside"]:
            loop.ask_to_stop()

    @override
    def stop(self, parent: Any) -> None:
        for loop in vars(parent.app)["beside"]:
            loop.stop()

    @override
    def terminate(self, parent: Any) -> None:
        for loop in vars(parent.app)["beside"]:
            loop.stop()


async def digest_for_ever(settings: Settings) -> None:
    """Digest uploads whose bytes did not come in order, until cancelled.

    No task: it takes as long as a file takes to be read, and the state of a hash is nowhere kept.
    """
    async with open_digests(settings) as digests:
        await digests.run()


def create_worker(settings: Settings) -> WorkerApp:
    """Build the app; nothing connects before the first task runs."""
    loop = TaskLoop(lambda: open_resources(settings), TaskResources.close)

    def shut_down(**_: object) -> None:
        loop.close()

    def set_up_logging(**_: object) -> None:
        """Log as the API does; Celery leaves logging alone where this is connected."""
        configure_logging(level=settings.effective_log_level, format=settings.log_format)
        if settings.effective_log_level != "DEBUG":
            for name in TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)

    redis_transport.Channel.QoS = SteadyQoS
    setup_logging.connect(set_up_logging, weak=False)
    app = WorkerApp("maas", loader=InstalledLoader)
    app.conf.update(configuration(settings.redis, settings.audit, settings.suppliers))
    app.services = make_services(settings, loop)
    app.beside = (
        BackgroundLoop(lambda: sweep_for_ever(settings), name="maas-sweeper"),
        BackgroundLoop(lambda: digest_for_ever(settings), name="maas-digester"),
    )
    app.steps["worker"].add(BesideStep)
    if settings.tracing.endpoint is not None:
        resolve_name("maas.shared.infrastructure.tracing:trace_worker")(settings.tracing)
    # Strong references: the handlers are local, and a signal holds its receivers weakly.
    worker_process_shutdown.connect(shut_down, weak=False)
    worker_shutdown.connect(shut_down, weak=False)
    return app


def watch_config(settings: Settings) -> None:
    """Watch `config.yaml` in each process of a worker, from its fork on, and in beat's."""

    def watch(**_: object) -> None:
        SettingsWatch(settings).start()

    for begun in (worker_ready, worker_process_init, beat_init):
        begun.connect(watch, weak=False)


def __getattr__(name: str) -> WorkerApp:
    """Make the app when Celery asks for it: importing this module reads no settings."""
    if name != "app":
        raise AttributeError(name)
    settings = load_settings()
    app = create_worker(settings)
    watch_config(settings)
    globals()[name] = app
    return app
