"""An API process and a worker that are traced, and what a collector is told of one call."""

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from maas.shared.infrastructure.settings import Settings
from tests.collector import Collector, Span, collecting
from tests.conftest import TEST_SECRET
from tests.e2e.conftest import MakePerson
from tests.e2e.inference.gateway import SUPPLIER_KEY, Gateway, connected
from tests.pair import WIDE_LIMITS
from tests.upstream.desk import Desk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

START_SECONDS: Final = 90
STOP_SECONDS: Final = 15
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
CALLER: Final = "b7ad6b7169203331"
UNWANTED: Final = "1" * 32
PROMPT: Final = "canary-prompt-of-the-caller"
QUERY: Final = "canary-in-a-query"


def environment_of(settings: Settings, folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not re.match("MAAS_|OTEL_", name)}
    database, redis = settings.database, settings.redis
    assert database.owner_url is not None
    assert database.system_url is not None
    assert redis.broker_url is not None
    return {
        **kept,
        **WIDE_LIMITS,
        "MAAS_ENVIRONMENT": "test",
        "MAAS_LOG_FORMAT": "json",
        "MAAS_SECRET_KEY": TEST_SECRET,
        "MAAS_DATA_DIR": str(folder),
        "MAAS_DATABASE__URL": database.url.get_secret_value(),
        "MAAS_DATABASE__OWNER_URL": database.owner_url.get_secret_value(),
        "MAAS_DATABASE__SYSTEM_URL": database.system_url.get_secret_value(),
        "MAAS_REDIS__URL": redis.url.get_secret_value(),
        "MAAS_REDIS__BROKER_URL": redis.broker_url.get_secret_value(),
        "MAAS_REDIS__TIMEOUT_MS": "2000",
        "MAAS_AUDIT__KICK_AT": "1",
        "MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": ",".join(
            settings.outgoing.allowed_private_targets
        ),
        **more,
    }


@contextmanager
def running(
    words: list[str], environment: Mapping[str, str], log: Path
) -> "Iterator[subprocess.Popen[bytes]]":
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "maas.cli", *words],
            env=dict(environment),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def api_of(
    environment: Mapping[str, str], folder: Path
) -> "AsyncIterator[tuple[int, subprocess.Popen[bytes]]]":
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with running(["serve", "--port", str(port)], environment, folder / "api.log") as process:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + START_SECONDS
            while True:
                is_hopeful = process.poll() is None and time.monotonic() < deadline
                assert is_hopeful, (folder / "api.log").read_text()
                with suppress(httpx.HTTPError):
                    if (await client.get("/health/live")).is_success:
                        break
                await asyncio.sleep(0.05)
        yield port, process


async def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


def log_lines(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "api.log").read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in told if line["event"] == event]


async def call(gateway: Gateway, **headers: str) -> None:
    answer = await gateway.http.post(
        f"/v1/chat/completions?trace={QUERY}",
        json={"model": "bot", "messages": [{"role": "user", "content": PROMPT}]},
        headers={"Authorization": f"Bearer {gateway.key}", **headers},
    )
    assert answer.status_code == 200, answer.text


async def test_one_call_is_one_trace(
    calling_settings: Settings, supplier: tuple[Desk, int], make_person: MakePerson, tmp_path: Path
) -> None:
    root = await make_person("canary-root", roles=("admin", "platform_admin"))
    desk, supplier_port = supplier
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        environment = environment_of(
            calling_settings,
            tmp_path / "data",
            MAAS_TRACING__ENDPOINT=collector.endpoint,
            MAAS_TRACING__PROPAGATE_TO=f"127.0.0.1:{supplier_port}",
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        )
        with running(["worker", "--concurrency", "1"], environment, tmp_path / "worker.log"):
            async with (
                api_of(environment, tmp_path) as (port, process),
                connected(port, desk, supplier_port, root) as gateway,
            ):
                await gateway.deploy()
                await call(gateway, traceparent=f"00-{UNWANTED}-{CALLER}-00")
                flushed = await call_until_flushed(gateway, collector)
                stack.close()
                await check_that_nobody_waits(gateway, process, tmp_path)

    check_trace([span for span in collector.spans if span.trace_id == flushed], supplier_port)
    [upstream] = find(collector, flushed, "POST")
    sent = {each.traceparent for each in gateway.calls}
    assert f"00-{flushed}-{upstream.span_id}-01" in sent
    assert not find(collector, UNWANTED), "a caller who wants no trace has none"
    lines = log_lines(tmp_path, "request_served")
    assert [line["route"] for line in lines if line.get("trace_id") == flushed] == [
        "/v1/chat/completions"
    ]
    check_no_secret(collector, gateway)


async def call_until_flushed(gateway: Gateway, collector: Collector) -> str:
    """Call until a worker was asked for early in one of the calls, and tell the trace of that one.

    A process asks for one flush at a time, and no worker takes what was asked long ago.
    """
    deadline = time.monotonic() + START_SECONDS
    for number in itertools.count(1):
        await call(gateway, traceparent=f"00-{number:032x}-{CALLER}-01")
        for span in list(collector.spans):
            if span.name == "audit.flush" and int(span.trace_id, 16) <= number:
                return span.trace_id
        assert time.monotonic() < deadline, "no task is part of any call's trace"
        await asyncio.sleep(0.1)
    raise AssertionError


async def check_that_nobody_waits(
    gateway: Gateway, api: "subprocess.Popen[bytes]", folder: Path
) -> None:
    """See that a collector that is gone costs one warning, and no second of a stop."""
    await call(gateway)
    await until(lambda: len(log_lines(folder, "traces_lost")) > 0, "no warning")
    await call(gateway)
    begun = time.monotonic()
    api.send_signal(signal.SIGTERM)
    await asyncio.to_thread(api.wait, STOP_SECONDS)
    assert time.monotonic() - begun < STOP_SECONDS, "the last spans held it up"
    assert [line["level"] for line in log_lines(folder, "traces_lost")] == ["warning"]
    assert "opentelemetry" not in (folder / "api.log").read_text().lower()


def find(collector: Collector, trace_id: str, *names: str) -> list[Span]:
    found = [span for span in collector.spans if span.trace_id == trace_id]
    return [span for span in found if span.name in names] if names else found


def check_trace(spans: list[Span], supplier_port: int) -> None:
    [api] = [span for span in spans if span.kind == SERVER]
    assert (api.name, api.parent_id) == ("POST /v1/chat/completions", CALLER)
    assert api.attributes["http.response.status_code"] == 200
    assert {"maas.request_id", "maas.tenant_id", "maas.account_id"} < api.attributes.keys()
    assert {span.process for span in spans} == {"api", "worker"}
    below = [span for span in spans if span.parent_id == api.span_id]
    assert {"postgresql", "redis"} <= {span.attributes.get("db.system.name") for span in below}
    [upstream] = [span for span in below if span.attributes.get("server.port") == supplier_port]
    assert upstream.events == ("answer_begun",)
    check_task(spans)


def check_task(spans: list[Span]) -> None:
    """See that what the worker did hangs on the message, and its statements on the task."""
    by_id = {span.span_id: span for span in spans}
    [task, *_] = [span for span in spans if span.kind == CONSUMER]
    assert by_id[task.parent_id].kind == PRODUCER
    assert any(span.parent_id == task.span_id and span.kind == CLIENT for span in spans)


def check_no_secret(collector: Collector, gateway: Gateway) -> None:
    """Look through all that was sent for what nobody may read there."""
    told = b"".join(collector.bodies)
    person = gateway.root
    for secret in (
        *(gateway.key, PROMPT, QUERY, SUPPLIER_KEY, TEST_SECRET),
        *(person.access_token, person.refresh_token, person.username),
    ):
        assert secret.encode() not in told
    routes = {span.name for span in collector.spans if span.kind == SERVER}
    assert "POST /api/v1/providers/{provider_id}/models" in routes
    assert not re.search(rb"/[0-9a-f]{8}-[0-9a-f]{4}-7", told), "an id in a name"
