"""Traces to a collector over OTLP, where the operator asked for them; else this is not imported.

No code of ours knows of it: what it looks at it wraps when it starts, as other instruments do.
`docs/adr/0051-traces.md` says why they are not the ready-made ones.
"""

import logging
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import structlog
from celery.signals import worker_process_init, worker_process_shutdown
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from structlog.typing import EventDict, WrappedLogger
from typing_extensions import override

from maas.shared.infrastructure.tracing_calls import read_targets, trace_calls
from maas.shared.infrastructure.tracing_settings import TracingSettings
from maas.shared.infrastructure.tracing_tasks import trace_running, trace_sending

CLOSE_SECONDS: Final = 2.0
"""For the last spans; a collector that does not answer holds nothing up for longer."""

_log = structlog.get_logger(__name__)


class Tracing:
    """Traces of one process: its spans go out in batches, from a thread of their own.

    Start it after the last fork. Without a collector spans are dropped, and a warning says so once.
    """

    def __init__(self, settings: TracingSettings, *, process: str) -> None:
        assert settings.endpoint is not None  # noqa: S101  without one there is nothing to start
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # who begins a trace has thrown the dice before
            resource=_describe(settings, process),
            shutdown_on_exit=False,
        )
        exporter = TellingExporter(OTLPSpanExporter(endpoint=_traces_url(settings.endpoint)))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(self._provider)
        self._undo = ExitStack()
        tracer = self._provider.get_tracer("maas")
        trace_calls(tracer, self._undo, propagate_to=read_targets(settings.propagate_to))
        trace_sending(tracer, self._undo)
        trace_running(tracer, self._undo, share=settings.sample_ratio)
        processors: list[Any] = structlog.get_config()["processors"]
        # In place: loggers that were used before know this list.
        processors.insert(1, add_trace)
        self._undo.callback(processors.remove, add_trace)

    def close(self) -> None:
        """Send what is left, two seconds at most."""
        self._undo.close()
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def trace_worker(settings: TracingSettings) -> None:
    """Trace what the processes of a worker do, each from its fork on."""
    open_now: list[Tracing] = []

    def start(**_: object) -> None:
        open_now.append(Tracing(settings, process="worker"))

    def close(**_: object) -> None:
        while open_now:
            open_now.pop().close()

    worker_process_init.connect(start, weak=False)
    worker_process_shutdown.connect(close, weak=False)


class TellingExporter(SpanExporter):
    """Says once that traces are lost, and once that they are not any more."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._is_failing = False

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing and not self._is_failing:
            _log.warning("traces_lost", spans=len(spans))
        elif self._is_failing and not is_failing:
            _log.info("traces_arrived_again")
        self._is_failing = is_failing
        return result

    @override
    def shutdown(self) -> None:
        self._inner.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the id of the trace on a line, where there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event


def _traces_url(endpoint: str) -> str:
    url = endpoint.rstrip("/")
    return url if url.endswith("/v1/traces") else f"{url}/v1/traces"


def _describe(settings: TracingSettings, process: str) -> Resource:
    """Name the process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read as well."""
    resource = Resource.create(
        {"service.instance.id": f"{socket.gethostname()}-{os.getpid()}", "maas.process": process}
    )
    is_unnamed = str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    name = settings.service_name or ("maas" if is_unnamed else None)
    return resource if name is None else resource.merge(Resource({SERVICE_NAME: name}))
