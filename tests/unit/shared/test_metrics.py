import os
import subprocess
import sys
from pathlib import Path

from maas.shared.infrastructure.metrics import MULTIPROCESS_VARIABLE, Metrics

COUNT_TWO_REQUESTS = """
import asyncio
from maas.shared.infrastructure.metrics import Metrics
metrics = Metrics()
metrics.request_started()
metrics.request_started()
metrics.request_finished(method="GET", route="/x", status=200, seconds=0.1)
print(asyncio.run(metrics.render()).decode())
"""

SEE_A_POOL_AND_WAIT = """
import asyncio, sys
from maas.shared.infrastructure.metrics import Metrics
metrics = Metrics()
metrics.pool_seen("reads", used=9, idle=0, limit=10)
metrics.pool_seen("reads", used=2, idle=1, limit=10)
print(asyncio.run(metrics.render()).decode(), flush=True)
sys.stdin.read()
"""


async def test_requests_are_counted_by_route_and_status() -> None:
    metrics = Metrics()

    for status in (200, 200, 404):
        metrics.request_started()
        metrics.request_finished(method="GET", route="/x/{id}", status=status, seconds=0.003)
    text = (await metrics.render()).decode()

    assert 'maas_http_requests_total{method="GET",route="/x/{id}",status="200"} 2.0' in text
    assert 'maas_http_requests_total{method="GET",route="/x/{id}",status="404"} 1.0' in text
    assert 'seconds_bucket{le="0.005",method="GET",route="/x/{id}"} 3.0' in text
    assert "maas_http_requests_in_flight 0.0" in text


async def test_what_nothing_could_record_is_counted() -> None:
    metrics = Metrics()

    metrics.event_unrecorded(2)
    metrics.event_unrecorded(1)

    assert b"maas_audit_unrecorded_total 3.0" in await metrics.render()


async def test_made_up_methods_share_one_label() -> None:
    metrics = Metrics()

    for number in range(50):
        metrics.request_started()
        metrics.request_finished(method=f"M{number}", route="unmatched", status=405, seconds=0)
    text = (await metrics.render()).decode()

    assert text.count("maas_http_requests_total{") == 1
    assert 'method="OTHER"' in text


def test_processes_are_summed_and_the_dead_serve_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, MULTIPROCESS_VARIABLE: str(tmp_path)}

    texts = [
        subprocess.run(
            [sys.executable, "-c", COUNT_TWO_REQUESTS],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    ]

    finished = 'maas_http_requests_total{method="GET",route="/x",status="200"}'
    assert f"{finished} 1.0" in texts[0]
    assert f"{finished} 2.0" in texts[1]
    assert "maas_http_requests_in_flight 1.0" in texts[1]


def test_pools_of_processes_that_live_are_summed(tmp_path: Path) -> None:
    environment = {**os.environ, MULTIPROCESS_VARIABLE: str(tmp_path)}

    with subprocess.Popen(
        [sys.executable, "-c", SEE_A_POOL_AND_WAIT],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        texts = []
        for _ in range(2):
            own = subprocess.run(
                [sys.executable, "-c", SEE_A_POOL_AND_WAIT],
                env=environment,
                stdin=subprocess.DEVNULL,
                check=True,
                capture_output=True,
                text=True,
            )
            texts.append(own.stdout)
        other.stdin.close()

    # The one that ended before the second one began holds nothing any more.
    for text in texts:
        assert 'maas_database_connections{pool="reads",state="used"} 4.0' in text
        assert 'maas_database_connections{pool="reads",state="idle"} 2.0' in text
        assert 'maas_database_connections_limit{pool="reads"} 20.0' in text
