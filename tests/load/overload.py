"""G18: three times what there is room for. Most of the peak is still served, the rest is told so.

The peak is searched in the same run with closed loops, and three times that is then sent by the
clock. The platform is `maas up` with one API process, so that a second core is left for its
servers, the generator and the scripted upstream.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.acceptance.platforms import Platform, running
from tests.load.generator import NUMBER, Figures, Orders, begin, collect, generate, share
from tests.load.report import Row
from tests.load.watching import watch_liveness
from tests.load.world import CALL, port_of, prepare_calls, request, scripted_upstream

TIMES: Final = 3
LEVELS: Final = (8, 32, 128)
CONNECTIONS: Final = 800
LEVEL_SECONDS: Final = 3.0
WARM_UP_SECONDS: Final = 3.0
MIN_GOODPUT: Final = 0.9
MAX_REFUSAL_MS: Final = 100.0
MAX_GROWTH_MIB: Final = 50.0
MIB: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What is sent, and what it is called."""

    name: str
    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    face: str
    peak: float
    peak_at: int
    figures: Figures
    live_ms: float
    growth_mib: float


def measure(folder: Path, *, seconds: float, tell: Callable[[str], None]) -> list[Row]:
    with scripted_upstream() as upstream:
        settings = {
            "MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": f"127.0.0.1:{upstream.port}",
            "MAAS_LOG_LEVEL": "WARNING",
        }
        (folder / "overload").mkdir(mode=0o755)
        with running(folder / "overload", settings=settings) as platform:
            token = platform.sign_in().token
            key = prepare_calls(platform.url, upstream, token)
            model = {"name": f"overload-{NUMBER.decode()}", "framework": "other"}
            faces = (
                Face(name="/api/v1 read", request=request("GET", "/api/v1/users/profile", token)),
                Face(name="/api/v1 write", request=request("POST", "/api/v1/models", token, model)),
                Face(name="/v1 call", request=request("POST", "/v1/chat/completions", key, CALL)),
            )
            return [
                row
                for face in faces
                for row in _judge(_measure(platform, face, seconds=seconds, tell=tell))
            ]


def _measure(
    platform: Platform, face: Face, *, seconds: float, tell: Callable[[str], None]
) -> Overload:
    api = platform.of_role("serve")[0]
    number = 0

    def orders(connections: int, seconds: float, rate: float | None = None) -> Orders:
        nonlocal number
        # No two rounds may make what has the same name.
        number += 10_000_000
        return Orders(
            port=port_of(platform.url),
            request=face.request,
            connections=connections,
            seconds=seconds,
            rate=rate,
            first_number=number,
        )

    tell(f"{face.name}: warming up")
    generate(orders(LEVELS[-1], WARM_UP_SECONDS))
    best, best_at = 0.0, 0
    for level in LEVELS:
        tell(f"{face.name}: looking for the peak with {level} callers")
        found = generate(orders(level, LEVEL_SECONDS))
        if found.good_a_second > best:
            best, best_at = found.good_a_second, level
    # Memory is compared under the load itself: that it was once needed is no growth.
    generate(orders(CONNECTIONS, WARM_UP_SECONDS, TIMES * best))
    before = api.memory_info().rss
    tell(f"{face.name}: {TIMES * best:,.0f} a second for {seconds:.0f} s")
    process = begin(orders(CONNECTIONS, seconds, TIMES * best))
    with watch_liveness(platform.url) as lives:
        figures = collect(process)
    growth = (_settled_rss(api) - before) / MIB
    return Overload(
        face=face.name,
        peak=best,
        peak_at=best_at,
        figures=figures,
        live_ms=max(lives.milliseconds, default=float("inf")),
        growth_mib=growth,
    )


def _settled_rss(api: psutil.Process) -> int:
    time.sleep(1)
    return int(api.memory_info().rss)


def _judge(done: Overload) -> list[Row]:
    figures, name = done.figures, f"overload, {done.face}"
    goodput = figures.good_a_second / done.peak
    refused = len(figures.refused_ms)
    return [
        Row(
            name=f"{name}: goodput",
            figure=f"{goodput:.0%} of {done.peak:,.0f}/s (peak with {done.peak_at} callers),"
            f" {figures.sent / figures.seconds:,.0f}/s sent",
            goal=f">= {MIN_GOODPUT:.0%}",
            is_met=goodput >= MIN_GOODPUT,
        ),
        Row(
            name=f"{name}: refusals",
            figure=f"{refused:,} in p50 {share(figures.refused_ms, 0.5):.0f} ms,"
            f" p99 {share(figures.refused_ms, 0.99):.0f} ms,"
            f" max {max(figures.refused_ms, default=0):.0f} ms;"
            f" {figures.without_retry_after} without Retry-After",
            goal=f"<= {MAX_REFUSAL_MS:.0f} ms (p99), all with Retry-After",
            is_met=share(figures.refused_ms, 0.99) <= MAX_REFUSAL_MS
            and not figures.without_retry_after,
        ),
        Row(
            name=f"{name}: failed though accepted",
            figure=", ".join(f"{n} {kind}" for kind, n in sorted(figures.failed.items())) or "0",
            goal="0",
            is_met=not figures.failed,
        ),
        Row(
            name=f"{name}: accepted",
            figure=f"{len(figures.good_ms):,} in p50 {share(figures.good_ms, 0.5):.0f} ms,"
            f" p99 {share(figures.good_ms, 0.99):.0f} ms",
            goal="-",
            is_met=True,
        ),
        Row(
            name=f"{name}: liveness",
            figure=f"{done.live_ms:.0f} ms at most",
            goal="<= 1000 ms",
            is_met=done.live_ms <= 1000,
        ),
        Row(
            name=f"{name}: memory",
            figure=f"{done.growth_mib:+.0f} MiB",
            goal=f"<= {MAX_GROWTH_MIB:.0f} MiB",
            is_met=done.growth_mib <= MAX_GROWTH_MIB,
        ),
        Row(
            name=f"{name}: the generator itself",
            figure=f"{figures.cpu_share:.0%} of a core, p99 {figures.late_ms:.0f} ms late,"
            f" {figures.unsent:,} unsent",
            goal="-",
            is_met=True,
        ),
    ]
