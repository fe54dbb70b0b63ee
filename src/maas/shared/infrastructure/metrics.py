"""Prometheus metrics: bounded labels, true across worker processes, gauges read when scraped."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import ClassVar

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SCRAPE_TIMEOUT_SECONDS = 1.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds."""

GaugeReader = Callable[[], Awaitable[Mapping[str, float]]]


class _OwnPid:
    """This process's id, asked for once: prometheus_client asks at each count otherwise."""

    def __init__(self) -> None:
        self._note()
        os.register_at_fork(after_in_child=self._note)

    def __call__(self) -> int:
        return self._pid

    def _note(self) -> None:
        self._pid = os.getpid()


if MULTIPROCESS_VARIABLE in os.environ:
    values.ValueClass = values.MultiProcessValue(_OwnPid())  # type: ignore[no-untyped-call]  # no annotations


class Metrics:
    """The process's metrics; with `PROMETHEUS_MULTIPROC_DIR` set, a scrape sums all processes.

    The variable must be set before this module is first imported: prometheus_client reads it then.
    """

    content_type: ClassVar[str] = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "maas_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "maas_http_request_duration_seconds",
            "Time to the end of the answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "maas_http_requests_in_flight",
            "Requests being served.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._shed = Counter(
            "maas_http_requests_shed", "Requests refused under load.", registry=self.registry
        )
        self._limited = Counter(
            "maas_http_requests_limited",
            "Requests refused by a limit on requests.",
            ["policy"],
            registry=self.registry,
        )
        self._unrecorded = Counter(
            "maas_audit_unrecorded",
            "Ordinary reads answered while nothing could record them.",
            registry=self.registry,
        )
        self._connections = Gauge(
            "maas_database_connections",
            "Connections to PostgreSQL, by pool and whether they are held.",
            ["pool", "state"],
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._most_connections = Gauge(
            "maas_database_connections_limit",
            "The most connections that a pool may have.",
            ["pool"],
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._readers: dict[str, GaugeReader] = {}
        self._included: dict[str, CollectorRegistry] = {}

    def request_started(self) -> None:
        self._in_flight.inc()

    def request_finished(self, *, method: str, route: str, status: int, seconds: float) -> None:
        self._in_flight.dec()
        children = self._children.get((method, route, status))
        if children is None:
            children = self._make_children(method, route, status)
        count, latency = children
        count.inc()
        latency.observe(seconds)

    def request_shed(self) -> None:
        self._shed.inc()

    def request_limited(self, policy: str) -> None:
        self._limited.labels(policy).inc()

    def event_unrecorded(self, count: int) -> None:
        self._unrecorded.inc(count)

    def pool_seen(self, pool: str, *, used: int, idle: int, limit: int) -> None:
        self._connections.labels(pool, "used").set(used)
        self._connections.labels(pool, "idle").set(idle)
        self._most_connections.labels(pool).set(limit)

    def include(self, subject: str, registry: CollectorRegistry) -> None:
        """Show what a context counts in a registry of its own, instead of the one before."""
        earlier = self._included.get(subject)
        if earlier is not None:
            self.registry.unregister(earlier)
        self._included[subject] = registry
        self.registry.register(registry)

    def _make_children(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        known = method if method in METHODS else "OTHER"
        children = (
            self._requests.labels(known, route, str(status)),
            self._latency.labels(known, route),
        )
        if known == method:
            # Only known methods are kept: a caller may make up any number of others.
            self._children[method, route, status] = children
        return children

    def read_at_scrape(self, subject: str, reader: GaugeReader) -> None:
        """Add gauges, named `maas_<subject>_<key>`, whose values are read at each scrape."""
        self._readers[subject] = reader

    async def render(self) -> bytes:
        """Write the exposition text; gauges that fail or take over a second are left out."""
        answers = await asyncio.gather(*map(_read, self._readers.values()), return_exceptions=True)
        read = CollectorRegistry()
        for subject, answer in zip(self._readers, answers, strict=True):
            if not isinstance(answer, BaseException):
                read.register(_ReadGauges(subject, answer))
        return await asyncio.to_thread(self._collect) + generate_latest(read)

    def _collect(self) -> bytes:
        folder = os.environ.get(MULTIPROCESS_VARIABLE)
        if not folder:
            return generate_latest(self.registry)
        _forget_dead_processes(Path(folder))
        all_processes = CollectorRegistry()
        MultiProcessCollector(all_processes)  # type: ignore[no-untyped-call]  # no annotations
        return generate_latest(all_processes)


def _forget_dead_processes(folder: Path) -> None:
    """Drop what processes that died were serving; a killed one could not say goodbye."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not psutil.pid_exists(pid):
            file.unlink(missing_ok=True)


async def _read(reader: GaugeReader) -> Mapping[str, float]:
    async with asyncio.timeout(SCRAPE_TIMEOUT_SECONDS):
        return await reader()


class _ReadGauges(Collector):
    def __init__(self, subject: str, values: Mapping[str, float]) -> None:
        self._subject = subject
        self._values = values

    @override
    def collect(self) -> list[Metric]:
        return [
            GaugeMetricFamily(
                f"maas_{self._subject}_{name}", f"Read when scraped: {name}.", value=value
            )
            for name, value in self._values.items()
        ]
