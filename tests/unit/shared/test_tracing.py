"""Traces: what is told of statements, who is traced, and that nothing is loaded without them."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs
from typing_extensions import override

from maas.shared.infrastructure.metrics import Metrics
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings, load_settings
from maas.shared.infrastructure.tracing import TellingExporter
from maas.shared.infrastructure.tracing_calls import find_parent, read_targets, without_literals
from maas.shared.infrastructure.tracing_tasks import HEADER, TaskTraces
from maas.shared.interface.problems import Faces
from maas.shared.interface.tracing import TracedEdge
from maas.shared.interface.traffic import Traffic
from tests.conftest import TEST_SECRET
from tests.fakes.recorder import FakeRecorder

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> Iterator[trace.Tracer]:
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield provider.get_tracer("maas")
    provider.shutdown()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (
            "SELECT a FROM t WHERE b = $1 AND c2 = 'it''s me'",
            "SELECT a FROM t WHERE b = $1 AND c2 = ?",
        ),
        ("BEGIN; SET LOCAL maas.tenant_id = '0190-7f'", "BEGIN; SET LOCAL maas.tenant_id = ?"),
        ("SELECT $$secret$$, $tag$it's$tag$, 12.5, x1", "SELECT ?, ?, ?, x1"),
        ("LIMIT 10 OFFSET $2", "LIMIT ? OFFSET $2"),
        ("SELECT a -- don't\n, 'secret'", "SELECT a ?\n, ?"),
        ("SELECT /* don't */ 'secret'", "SELECT ? ?"),
        (r"SELECT E'a\'secret', 'b'", "SELECT ?, ?"),
        ("SELECT \"don't\", 'secret'", 'SELECT "don\'t", ?'),
        ("SELECT 'secret", "SELECT ?"),
    ],
)
def test_statements_are_told_without_values(query: str, told: str) -> None:
    assert without_literals(query) == told


@pytest.mark.parametrize(
    ("target", "spelled"),
    [
        ("vLLM.Internal:8000", "vllm.internal:8000"),
        ("[FD00:0::1]:80", "fd00::1:80"),
        ("fd00::1:8000", "fd00::1:8000"),
        ("127.0.0.1:80", "127.0.0.1:80"),
    ],
)
def test_targets_are_spelled_as_urls_are_read(target: str, spelled: str) -> None:
    assert read_targets([target]) == {spelled}


def settings(**tracing: Any) -> Settings:
    return load_settings(
        secret_key=TEST_SECRET,
        database={"url": "postgresql://unused"},
        redis={"url": "redis://unused"},
        tracing=tracing,
    )


def test_a_collectors_password_does_not_stand_in_its_url() -> None:
    with pytest.raises(InvalidSettingsError, match="MAAS_TRACING__ENDPOINT"):
        settings(endpoint="http://me:password@collector:4318")


def test_without_the_extra_the_start_is_refused_with_its_name() -> None:
    asked = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry."):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from maas.cli import app
app(["config", "show"])
"""

    done = run(asked, MAAS_TRACING__ENDPOINT="http://127.0.0.1:4318")

    assert done.returncode == 2
    assert "MAAS_TRACING__ENDPOINT: traces need the extra `otel`" in done.stderr


def test_a_process_without_traces_loads_nothing_of_them() -> None:
    # FastAPI itself loads their API, and more of them where it is installed, whatever we say.
    asked = """
import sys
import maas.main
from maas.worker import app
maas.main._edge(maas.main.load_settings().tracing)
app.tasks
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "maas.shared.interface.tracing",
    "maas.shared.infrastructure.tracing", "requests")
print([name for name in parts if name in sys.modules])
"""

    done = run(asked)

    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def run(code: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={
            "MAAS_SECRET_KEY": TEST_SECRET,
            "MAAS_DATABASE__URL": "postgresql://unused",
            "MAAS_REDIS__URL": "redis://unused",
            "MAAS_DATA_DIR": "/nowhere",
            **variables,
        },
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )


def test_what_begins_long_after_a_request_is_no_part_of_it(tracer: trace.Tracer) -> None:
    with trace.use_span(tracer.start_span("request")) as span:
        while_it_runs = find_parent()
        span.end()
        just_after = find_parent()
    old = tracer.start_span("old", start_time=1)
    old.end(end_time=2)
    with trace.use_span(old):
        long_after = find_parent()

    assert while_it_runs is just_after is span
    assert long_after is None
    assert find_parent() is None


class Task:
    name = "audit.flush"

    def __init__(self, header: str | None) -> None:
        self.request = type("Request", (), {HEADER: header} if header else {})()


def run_task(traces: TaskTraces, header: str | None, result: object = None) -> None:
    traces.begin(task_id="1", task=Task(header))
    traces.end(task_id="1", state="SUCCESS", retval=result)


def test_a_task_belongs_to_the_trace_its_message_names(
    tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    run_task(TaskTraces(tracer, share=0), f"{CALLER}-01")
    run_task(TaskTraces(tracer, share=0), None)

    [span] = spans.get_finished_spans()
    assert span.context is not None
    assert trace.format_trace_id(span.context.trace_id) in CALLER
    assert find_parent() is None


def test_a_message_of_before_begins_a_trace_of_its_own(
    tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    run_task(TaskTraces(tracer, share=1), None)

    [span] = spans.get_finished_spans()
    assert span.parent is None


def test_of_an_error_only_its_kind_is_told(
    tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    run_task(TaskTraces(tracer, share=1), None, ValueError("a secret"))

    [span] = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"
    assert "secret" not in span.to_json()


class FlakyExporter(SpanExporter):
    def __init__(self) -> None:
        self.result = SpanExportResult.FAILURE

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.result


def test_lost_traces_are_told_once_for_each_outage() -> None:
    inner = FlakyExporter()
    exporter = TellingExporter(inner)

    with capture_logs() as logs:
        exporter.export(())
        exporter.export(())
        inner.result = SpanExportResult.SUCCESS
        exporter.export(())
        exporter.export(())

    assert [line["event"] for line in logs] == ["traces_lost", "traces_arrived_again"]


async def traced_requests(tracer: trace.Tracer, *headers: bytes, share: float = 1) -> None:
    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def drop(_message: Message) -> None:
        """Let nobody hear it."""

    edge = TracedEdge(
        answer, share=share, traffic=Traffic(max_in_flight=9), metrics=Metrics(), faces=Faces()
    )
    edge.tracer = tracer
    for path in ("/api/v1/some/thing", "/health/live"):
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"secret=1",
            "headers": [(b"traceparent", each) for each in headers],
            "state": {"recorder": FakeRecorder()},
        }
        await edge(scope, nothing, drop)


class TestRequests:
    async def test_are_named_by_their_route_and_never_by_their_path(
        self, tracer: trace.Tracer, spans: InMemorySpanExporter
    ) -> None:
        await traced_requests(tracer)

        [span] = spans.get_finished_spans()
        assert (span.name, span.parent) == ("GET unmatched", None)
        assert not span.status.is_ok
        assert "secret" not in span.to_json()
        assert "thing" not in span.to_json()

    @pytest.mark.parametrize(
        "headers", [[f"{CALLER}-01".encode()] * 2, [b"00-nonsense"], [b"\xff" * 200]]
    )
    async def test_take_no_nonsense_for_a_callers_trace(
        self, tracer: trace.Tracer, spans: InMemorySpanExporter, headers: list[bytes]
    ) -> None:
        await traced_requests(tracer, *headers)

        [span] = spans.get_finished_spans()
        assert span.parent is None

    async def test_are_not_traced_because_a_caller_asks_for_it(
        self, tracer: trace.Tracer, spans: InMemorySpanExporter
    ) -> None:
        await traced_requests(tracer, f"{CALLER}-01".encode(), share=0)

        assert spans.get_finished_spans() == ()

    async def test_are_not_traced_where_a_caller_wants_it_not(
        self, tracer: trace.Tracer, spans: InMemorySpanExporter
    ) -> None:
        await traced_requests(tracer, f"{CALLER}-00".encode())

        assert spans.get_finished_spans() == ()
