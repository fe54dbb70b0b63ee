"""One model, called three ways: directly, through LiteLLM's proxy, and through ours.

The upstream is the same scripted process for all, and rounds are interleaved, so that what else the
machine does falls on each way. Ours checks a key, holds and settles nine quotas in three scopes,
writes the ledger and the audit trail, on servers that keep their promises to the disk; LiteLLM's
compares one key and keeps nothing.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import httpx
import psutil

from bench.gateway_load import Round, run_round, share
from bench.litellm_proxy import MASTER_KEY, run_litellm
from bench.load import Target
from bench.platform import RunningPlatform, run_platform, spent_ms
from bench.registry import wait_for_trail
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from tests.deployed import (
    CALLS,
    Supplier,
    deploy,
    make_key,
    make_person,
    set_quotas,
    sign_in,
)
from tests.stage import PASSWORD
from tests.upstream.process import RunningUpstream, running_upstream
from tests.upstream.scripts import Script

Mode: TypeAlias = Literal["plain", "streamed"]
Name: TypeAlias = Literal["direct", "LiteLLM", "ours"]
MODES: Final[tuple[Mode, ...]] = ("plain", "streamed")

CALLER: Final = "bench-caller"
MODEL: Final = "bench-chat"
SUPPLIER_KEY: Final = "sk-bench-upstream"
CHUNKS: Final = 20
CHUNK_SECONDS: Final = 0.002
"""Between two chunks, so that each arrives by itself as those of a real model do."""

ROUNDS: Final = 5
CALLERS: Final = (1, 16, 64)
CALLS_OF: Final[Mapping[Name, Mapping[Mode, Mapping[int, int]]]] = {
    "direct": {"plain": {1: 300, 16: 800, 64: 1_280}, "streamed": {1: 40, 16: 320, 64: 640}},
    "LiteLLM": {"plain": {1: 60, 16: 160, 64: 256}, "streamed": {1: 30, 16: 96, 64: 128}},
    "ours": {"plain": {1: 300, 16: 800, 64: 1_280}, "streamed": {1: 40, 16: 320, 64: 640}},
}
"""In a round: LiteLLM's takes ten times as long for each."""

WARM_UP: Final = 2_000
GROWTH_CALLS: Final = 20_000
GROWTH_CALLERS: Final = 16
LIMITS: Final = dict.fromkeys(("requests", "tokens", "cost"), 10**15)
IDLE_SECONDS: Final = 5.0
MIB: Final = 2**20

PROMPT: Final = "Tell me what the river carries past the old mills, and who counts the boats. " * 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Milliseconds of CPU a call: of the gateway's own process, and of all there are for it."""

    gateway: float
    every: float


@dataclass(slots=True, kw_only=True)
class Figures:
    """What was measured of one way, in one mode, with so many callers."""

    rounds: list[Round] = field(default_factory=list)
    cpu: list[Cpu] = field(default_factory=list)

    @property
    def gateway_ms(self) -> float:
        return statistics.median(each.gateway for each in self.cpu)

    @property
    def every_ms(self) -> float:
        return statistics.median(each.every for each in self.cpu)

    @property
    def generator_ms(self) -> float:
        return statistics.median(each.cpu_ms / len(each.timings) for each in self.rounds)

    def whole(self, part: float) -> float:
        """Tell the milliseconds that so large a part of the answers took at most."""
        return share([each.whole for one in self.rounds for each in one.timings], part)

    def first(self, part: float) -> float:
        """Tell the same of the first chunk."""
        return share([each.first for one in self.rounds for each in one.timings], part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything there is to tell; memory is in MiB, after all the rounds."""

    figures: Mapping[tuple[Name, Mode, int], Figures]
    memory: Mapping[Name, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Memory of our API process in MiB, before and after the calls."""

    calls: int
    before: float
    after: float

    @property
    def share(self) -> float:
        return self.after / self.before - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to the model. `others` work for it beside the `gateway`, and idle costs what it does.

    `drain` waits until all that a call leaves behind is done.
    """

    port: int
    key: str
    gateway: psutil.Process
    every: psutil.Process
    drain: Callable[[], None] = lambda: None
    idle_ms: float = 0.0
    """What all of them together take in a second in which nobody calls."""

    def target(self, mode: Mode) -> Target:
        body: dict[str, object] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 64,
        }
        if mode == "streamed":
            body["stream"] = True
        return Target.post("127.0.0.1", self.port, CALLS, body, self.key)

    def measure(self, mode: Mode, *, calls: int, callers: int) -> tuple[Round, Cpu]:
        gateway, every, began = self._gateway_ms(), spent_ms(self.every), time.monotonic()
        done = run_round(
            self.target(mode), calls=calls, callers=callers, is_stream=mode == "streamed"
        )
        gateway = self._gateway_ms() - gateway
        self.drain()
        every = spent_ms(self.every) - every - self.idle_ms * (time.monotonic() - began)
        return done, Cpu(gateway=gateway / calls, every=every / calls)

    def memory_mib(self) -> float:
        return float(self.gateway.memory_info().rss) / MIB

    def _gateway_ms(self) -> float:
        times = self.gateway.cpu_times()
        return (times.user + times.system) * 1000


def compare(folder: Path) -> Comparison:
    with ExitStack() as stack:
        upstream = stack.enter_context(_running_upstream())
        ways: Mapping[Name, Way] = {
            "direct": _direct(upstream),
            "LiteLLM": stack.enter_context(_litellm(folder, upstream)),
            "ours": stack.enter_context(_ours(folder, upstream)),
        }
        figures = {
            (name, mode, callers): Figures()
            for mode in MODES for callers in CALLERS for name in ways
        }  # fmt: skip
        for number in range(ROUNDS + 1):
            for (name, mode, callers), of_kind in figures.items():
                _command(upstream, mode)
                calls = CALLS_OF[name][mode][callers]
                done, cpu = ways[name].measure(mode, calls=calls, callers=callers)
                # The first round warms up.
                if number:
                    of_kind.rounds.append(done)
                    of_kind.cpu.append(cpu)
        memory = {name: way.memory_mib() for name, way in ways.items()}
    return Comparison(figures=figures, memory=memory)


def measure_growth(folder: Path) -> Growth:
    """Tell what so many calls leave in the memory of our API process, a tenth of them streamed."""
    with _running_upstream() as upstream, _ours(folder, upstream) as ours:
        _call_both_ways(ours, upstream, WARM_UP)
        before = ours.memory_mib()
        _call_both_ways(ours, upstream, GROWTH_CALLS)
        return Growth(calls=GROWTH_CALLS, before=before, after=ours.memory_mib())


def _call_both_ways(way: Way, upstream: RunningUpstream, calls: int) -> None:
    streamed = calls // 10
    for mode, number in zip(MODES, (calls - streamed, streamed), strict=True):
        _command(upstream, mode)
        way.measure(mode, calls=number, callers=GROWTH_CALLERS)


@contextmanager
def _running_upstream() -> Iterator[RunningUpstream]:
    with running_upstream(keys=(SUPPLIER_KEY,)) as upstream:
        upstream.put("models", {"models": [MODEL]})
        yield upstream


def _command(upstream: RunningUpstream, mode: Mode) -> None:
    """Have it answer at once, or chunk by chunk; and forget the calls, which would fill it up."""
    # The first chunk has the role and the last why it ended.
    script = Script(tokens=CHUNKS - 2, chunk_delay=CHUNK_SECONDS if mode == "streamed" else 0)
    upstream.script(MODEL, script)
    httpx.delete(f"{upstream.url}/_ledger", trust_env=False).raise_for_status()


def _direct(upstream: RunningUpstream) -> Way:
    process = psutil.Process(upstream.process.pid)
    return Way(port=upstream.port, key=SUPPLIER_KEY, gateway=process, every=process)


@contextmanager
def _litellm(folder: Path, upstream: RunningUpstream) -> Iterator[Way]:
    with run_litellm(folder, upstream=upstream.url, key=SUPPLIER_KEY, model=MODEL) as proxy:
        yield Way(port=proxy.port, key=MASTER_KEY, gateway=proxy.process, every=proxy.process)


@contextmanager
def _ours(folder: Path, upstream: RunningUpstream) -> Iterator[Way]:
    with run_platform(
        folder / "gateway", MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS=f"127.0.0.1:{upstream.port}"
    ) as platform:
        key = _prepare(platform, upstream)
        supervisor = psutil.Process(platform.process.pid)
        before, began = spent_ms(supervisor), time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle = (spent_ms(supervisor) - before) / (time.monotonic() - began)
        yield Way(
            port=platform.port,
            key=key,
            gateway=platform.api_process(),
            every=supervisor,
            drain=lambda: asyncio.run(wait_for_trail(platform.data_dir)),
            idle_ms=idle,
        )


def _prepare(platform: RunningPlatform, upstream: RunningUpstream) -> str:
    """Deploy the model, and make a key that each scope's quotas bind."""
    headers = {"Authorization": f"Bearer {platform.sign_in()}"}
    with httpx.Client(base_url=platform.url, headers=headers, trust_env=False) as client:
        supplier = Supplier.connect(client, upstream, key=SUPPLIER_KEY)
        deploy(client, MODEL, [supplier.add_model(MODEL)])
        account_id = make_person(client, CALLER)
        with sign_in(platform.url, CALLER, PASSWORD) as caller:
            key_id, key = make_key(caller, "gateway", ["inference:call"])
            set_quotas(caller, f"users/api-keys/{key_id}", LIMITS)
        set_quotas(client, f"admin/tenants/{DEFAULT_TENANT_ID}", LIMITS)
        set_quotas(client, f"admin/users/{account_id}", LIMITS)
    return key
