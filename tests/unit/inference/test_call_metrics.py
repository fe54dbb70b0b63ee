"""What Prometheus is told of calls, and figures that add up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from maas.inference.application.reports import CallEnd
from maas.inference.domain.figures import Figures
from maas.inference.infrastructure.metrics import MOST_CURRENCIES, CallMetrics
from maas.shared.infrastructure.metrics import MULTIPROCESS_VARIABLE, Metrics
from maas.user.public import UsageFigures
from tests.factories.routes import DEPLOYMENT

COUNT = """
import asyncio
from maas.inference.infrastructure.metrics import CallMetrics
from maas.shared.infrastructure.metrics import Metrics
calls, metrics = CallMetrics(), Metrics()
metrics.include("inference", calls.registry)
calls.tried("openai", "answered")
calls.tried("openai", "answered")
print(asyncio.run(metrics.render()).decode())
"""


def make_end(**figures: object) -> CallEnd:
    return CallEnd(
        deployment_id=DEPLOYMENT,
        outcome="success",
        seconds=0.3,
        first_byte_seconds=0.1,
        figures=UsageFigures(**figures),  # type: ignore[arg-type]  # what a test names
    )


async def test_calls_are_counted_by_kind_and_outcome_with_the_process_s_own() -> None:
    calls, metrics = CallMetrics(), Metrics()
    metrics.include("inference", calls.registry)

    calls.tried("openai", "answered")
    calls.tried("openai", "answered")
    calls.tried("local", "first-byte-timeout")
    calls.answer_began("openai", 0.2)
    calls.retried(is_granted=True)
    calls.retried(is_granted=False)
    calls.circuit_opened("azure")
    calls.waited("placed", 0.3)
    text = (await metrics.render()).decode()

    for line in (
        'maas_inference_upstream_calls_total{outcome="answered",provider="openai"} 2.0',
        'maas_inference_upstream_calls_total{outcome="first-byte-timeout",provider="local"} 1.0',
        'maas_inference_first_byte_seconds_bucket{le="0.25",provider="openai"} 1.0',
        'maas_inference_retries_total{granted="true"} 1.0',
        'maas_inference_retries_total{granted="false"} 1.0',
        'maas_inference_circuits_opened_total{provider="azure"} 1.0',
        'maas_inference_queue_wait_seconds_count{outcome="placed"} 1.0',
        "maas_http_requests_in_flight 0.0",
    ):
        assert line in text


async def test_a_platform_that_is_opened_again_is_shown_instead_of_the_one_before() -> None:
    metrics = Metrics()
    for _ in range(2):
        calls = CallMetrics()
        calls.tried("openai", "answered")
        metrics.include("inference", calls.registry)

    text = (await metrics.render()).decode()

    assert text.count('maas_inference_upstream_calls_total{outcome="answered"') == 1


def test_tokens_and_cost_are_counted_by_meter_and_currency() -> None:
    calls = CallMetrics()

    calls.call_ended(make_end(input_tokens=10, cached_tokens=4, output_tokens=3))
    calls.call_ended(make_end(reasoning_tokens=2, cost_nanos=1_500_000_000, currency="EUR"))
    text = generate_latest(calls.registry).decode()

    for line in (
        'maas_inference_tokens_total{meter="input"} 10.0',
        'maas_inference_tokens_total{meter="cached"} 4.0',
        'maas_inference_tokens_total{meter="output"} 3.0',
        'maas_inference_tokens_total{meter="reasoning"} 2.0',
        'maas_inference_cost_total{currency="EUR"} 1.5',
        'maas_inference_call_seconds_count{outcome="success"} 2.0',
    ):
        assert line in text


def test_calls_that_were_not_sent_are_counted_by_their_reason() -> None:
    calls = CallMetrics()

    for code in ("no-target", "upstream-unreachable", "no-target"):
        calls.call_refused(DEPLOYMENT, code)
    text = generate_latest(calls.registry).decode()

    assert 'maas_inference_calls_refused_total{reason="no-target"} 2.0' in text
    assert str(DEPLOYMENT) not in text


def test_what_was_to_be_kept_and_was_not_is_counted() -> None:
    calls = CallMetrics()

    calls.capture_dropped("no_room", 2)
    calls.capture_dropped("no_room", 1)

    expected = b'maas_inference_captures_dropped_total{reason="no_room"} 3.0'
    assert expected in generate_latest(calls.registry)


def test_no_tenant_makes_labels_without_end_by_its_currencies() -> None:
    calls = CallMetrics()

    for number in range(500):
        currency = f"{chr(65 + number // 26)}{chr(65 + number % 26)}X"
        calls.call_ended(make_end(cost_nanos=1, currency=currency))
    text = generate_latest(calls.registry).decode()

    assert text.count("maas_inference_cost_total{") == MOST_CURRENCIES + 1


def test_several_processes_are_counted_together(tmp_path: Path) -> None:
    environment = {**os.environ, MULTIPROCESS_VARIABLE: str(tmp_path)}
    command = [sys.executable, "-c", COUNT]

    subprocess.run(command, env=environment, check=True, capture_output=True)
    second = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout

    expected = 'maas_inference_upstream_calls_total{outcome="answered",provider="openai"} 4.0'
    assert expected in second
    assert second.count(expected) == 1


class TestFigures:
    @given(times=st.lists(st.floats(0.001, 900), min_size=1), share=st.floats(0.01, 1))
    def test_a_percentile_is_right_to_a_twentieth(self, times: list[float], share: float) -> None:
        figures = Figures()
        for seconds in times:
            figures.add_time("call", seconds)

        found = figures.percentile("call", share)

        exact = next(
            value for at, value in enumerate(sorted(times), 1) if at >= share * len(times) - 1e-9
        )
        assert found == pytest.approx(exact, rel=0.051)

    def test_without_a_call_there_is_none(self) -> None:
        assert Figures().percentile("call", 0.5) is None

    def test_other_times_are_not_mixed_in(self) -> None:
        figures = Figures()
        figures.add_time("first", 60)
        figures.add_time("call", 1)

        assert figures.percentile("call", 1) == pytest.approx(1, rel=0.051)
