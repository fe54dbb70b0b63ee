"""Traces of Celery's tasks: who sends one tells which trace it belongs to in a header.

A worker of before ignores the header, and a message without it begins a trace of its own.
"""

import random
from contextlib import ExitStack
from contextvars import Token
from typing import Any, Final

from celery.signals import before_task_publish, task_postrun, task_prerun
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from maas.shared.infrastructure.tracing_calls import find_parent, mark_failed

HEADER: Final = "traceparent"

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class TaskTraces:
    """Begins a span before each task, and ends it after; one for each process of a worker."""

    def __init__(self, tracer: Tracer, *, share: float) -> None:
        self._tracer = tracer
        self._share = share
        self._running: dict[str, tuple[Span, Token[Context]]] = {}

    def begin(self, *, task_id: str, task: Any, **_: object) -> None:
        header = getattr(task.request, HEADER, None)
        parent = _PROPAGATOR.extract({HEADER: header} if isinstance(header, str) else {})
        is_asked = trace.get_current_span(parent).get_span_context().trace_flags.sampled
        if not is_asked and random.random() >= self._share:  # noqa: S311  nothing to guess here
            return
        span = self._tracer.start_span(
            task.name,
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={"messaging.system": "celery", "messaging.message.id": task_id},
        )
        self._running[task_id] = span, attach(trace.set_span_in_context(span))

    def end(self, *, task_id: str, state: str | None = None, retval: Any = None, **_: Any) -> None:
        span, token = self._running.pop(task_id, (None, None))
        if span is None or token is None:
            return
        detach(token)
        span.set_attribute("celery.state", state or "")
        if isinstance(retval, BaseException):
            mark_failed(span, retval)
        span.end()


def trace_running(tracer: Tracer, undo: ExitStack, *, share: float) -> None:
    """Trace tasks that this process runs, until `undo` is closed."""
    traces = TaskTraces(tracer, share=share)
    for signal, handle in ((task_prerun, traces.begin), (task_postrun, traces.end)):
        signal.connect(handle, weak=False)
        undo.callback(signal.disconnect, handle)


def trace_sending(tracer: Tracer, undo: ExitStack) -> None:
    """Tell of tasks that are sent while something is traced, and whose they are."""

    def sending(*, sender: str, headers: dict[str, Any] | None = None, **_: object) -> None:
        parent = find_parent()
        if parent is None or headers is None:
            return
        with tracer.start_as_current_span(
            f"send {sender}",
            kind=SpanKind.PRODUCER,
            attributes={"messaging.system": "celery"},
        ):
            _PROPAGATOR.inject(headers)

    before_task_publish.connect(sending, weak=False)
    undo.callback(before_task_publish.disconnect, sending)
