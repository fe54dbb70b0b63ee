"""Spans of requests, by route template; imported only where traces are switched on."""

import random
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Receive, Scope
from typing_extensions import override

from maas.shared.domain.call import Call
from maas.shared.interface.middleware import Answer, EdgeMiddleware
from maas.shared.interface.problems import CLIENT_LEFT_STATUS
from maas.shared.interface.routes import route_template

_PROPAGATOR = TraceContextTextMapPropagator()
_SERVER_ERROR = 500


class TracedEdge(EdgeMiddleware):
    """The edge with a span around each request of the share; health routes have none.

    A caller's `traceparent` names the trace that the span belongs to, and may say that it is not to
    be traced. It cannot ask for more than the share: we throw the dice, not the trace's id.
    """

    def __init__(self, *args: Any, share: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._share = share
        self.tracer = trace.get_tracer("maas")

    @override
    async def serve(
        self, scope: Scope, receive: Receive, answer: Answer, call: Call, *, has_credential: bool
    ) -> None:
        parent = _find_caller(scope) if random.random() < self._share else None  # noqa: S311  no secret
        if parent is None:
            await super().serve(scope, receive, answer, call, has_credential=has_credential)
            return
        method = scope["method"]
        span = self.tracer.start_span(method, context=parent, kind=SpanKind.SERVER)
        token = attach(trace.set_span_in_context(span))
        try:
            await super().serve(scope, receive, answer, call, has_credential=has_credential)
        finally:
            detach(token)
            _describe(span, f"{method} {route_template(scope)}", scope, answer, call)
            span.end()


def _find_caller(scope: Scope) -> Context | None:
    """Tell which trace the caller's is part of, empty if of none; `None` if it wants none."""
    given = [value for name, value in scope["headers"] if name == b"traceparent"]
    if len(given) != 1:
        return Context()
    context = _PROPAGATOR.extract({"traceparent": given[0].decode("latin-1")}, Context())
    caller = trace.get_current_span(context).get_span_context()
    return None if caller.is_valid and not caller.trace_flags.sampled else context


def _describe(span: Span, name: str, scope: Scope, answer: Answer, call: Call) -> None:
    status = CLIENT_LEFT_STATUS if answer.status is None else answer.status
    span.update_name(name)
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.route", route_template(scope))
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("maas.request_id", call.request_id)
    if call.tenant_id is not None:
        span.set_attribute("maas.tenant_id", str(call.tenant_id))
    if call.principal is not None:
        span.set_attribute("maas.account_id", str(call.principal.account_id))
    if status >= _SERVER_ERROR:
        span.set_status(StatusCode.ERROR)
