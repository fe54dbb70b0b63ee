"""What Prometheus is told of calls: by kinds of suppliers and outcomes, and never by name or id."""

from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from typing_extensions import override

from maas.inference.application.reports import (
    AnswererKind,
    CallEnd,
    CallReports,
    RoutingReports,
    TryOutcome,
    WaitOutcome,
)
from maas.inference.public import DeploymentId
from maas.shared.domain.money import NANO

SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)

MOST_CURRENCIES: Final = 20
"""Which there are, tenants say: those that come later are counted as one, and mean nothing."""

OTHER_CURRENCIES: Final = "other"


class CallMetrics(RoutingReports, CallReports):
    """In a registry of its own, to be shown with the process's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Looking labels up costs more than counting does.
        self._tries = cache(
            self._counter(
                "upstream_calls",
                "Calls to what answers, by what came of each.",
                *("provider", "outcome"),
            ).labels
        )
        self._first_byte = cache(
            self._histogram(
                "first_byte_seconds",
                "From a call to an upstream until its answer begins.",
                "provider",
            ).labels
        )
        self._retries = self._counter(
            "retries", "Further targets asked, or not for want of a retry budget.", "granted"
        )
        self._opened = self._counter(
            "circuits_opened", "Targets that failed and are left alone for a while.", "provider"
        )
        self._waits = self._histogram("queue_wait_seconds", "Waits for a place.", "outcome")
        self._ended = cache(
            self._histogram("call_seconds", "Calls from their hold to their end.", "outcome").labels
        )
        self._refused = self._counter(
            "calls_refused", "Calls that were not sent, by the code of their error.", "reason"
        )
        self._hits = self._counter("cache_hits", "Calls answered by an answer that was kept.")
        self._tokens = cache(self._counter("tokens", "Tokens booked.", "meter").labels)
        self._cost = cache(
            self._counter(
                "cost", "What booked calls cost, in units of their currency.", "currency"
            ).labels
        )
        self._uncaptured = self._counter(
            "captures_dropped", "Prompts and answers that were to be kept, and were not.", "reason"
        )
        self._currencies: set[str] = set()

    @override
    def tried(self, kind: AnswererKind, outcome: TryOutcome) -> None:
        self._tries(kind, outcome).inc()

    @override
    def answer_began(self, kind: AnswererKind, seconds: float) -> None:
        self._first_byte(kind).observe(seconds)

    @override
    def retried(self, *, is_granted: bool) -> None:
        self._retries.labels("true" if is_granted else "false").inc()

    @override
    def circuit_opened(self, kind: AnswererKind) -> None:
        self._opened.labels(kind).inc()

    @override
    def waited(self, outcome: WaitOutcome, seconds: float) -> None:
        self._waits.labels(outcome).observe(seconds)

    @override
    def call_ended(self, end: CallEnd) -> None:
        figures = end.figures
        self._ended(end.outcome).observe(end.seconds)
        if end.is_hit:
            self._hits.inc()
        for meter, tokens in (
            ("input", figures.input_tokens),
            ("cached", figures.cached_tokens),
            ("output", figures.output_tokens),
            ("reasoning", figures.reasoning_tokens),
        ):
            if tokens:
                self._tokens(meter).inc(tokens)
        if figures.currency is not None and figures.cost_nanos:
            self._cost(self._label_of(figures.currency)).inc(figures.cost_nanos / NANO)

    @override
    def call_refused(self, deployment_id: DeploymentId | None, code: str) -> None:
        self._refused.labels(code).inc()

    def capture_dropped(self, reason: str, count: int) -> None:
        self._uncaptured.labels(reason).inc(count)

    def _label_of(self, currency: str) -> str:
        if currency not in self._currencies:
            if len(self._currencies) >= MOST_CURRENCIES:
                return OTHER_CURRENCIES
            self._currencies.add(currency)
        return currency

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"maas_inference_{name}", told, labels, registry=self.registry)

    def _histogram(self, name: str, told: str, *labels: str) -> Histogram:
        return Histogram(
            f"maas_inference_{name}", told, labels, buckets=SECONDS, registry=self.registry
        )
