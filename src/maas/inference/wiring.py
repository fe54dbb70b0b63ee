"""Builds inference from resources."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from maas.audit.public import RecordedEvents, Trail
from maas.inference.application.answer_cache import AnswerCache
from maas.inference.application.bills import Bills
from maas.inference.application.calls import CallService
from maas.inference.application.captures import Captures
from maas.inference.application.deployment_metrics import DeploymentMetricsService
from maas.inference.application.deployment_ports import DeploymentUnitOfWork
from maas.inference.application.deployments import DeploymentService
from maas.inference.application.dispatch import Dispatcher
from maas.inference.application.health_watch import HealthWatch
from maas.inference.application.metering import Meter
from maas.inference.application.ports import Routes
from maas.inference.application.receipts import ReceiptService
from maas.inference.application.refusals import Refusals
from maas.inference.application.target_states import TargetStates
from maas.inference.application.tries import TryPorts
from maas.inference.domain.anthropic_wire import AnthropicWire
from maas.inference.domain.openai_wire import OpenAIWire
from maas.inference.domain.route import Endpoint
from maas.inference.domain.routes import FindLocal
from maas.inference.domain.shares import Shares
from maas.inference.domain.wire import Wire
from maas.inference.infrastructure.deployment_queries import PostgresDeploymentQueries
from maas.inference.infrastructure.deployment_repository import SqlDeploymentUnitOfWork
from maas.inference.infrastructure.metrics import CallMetrics
from maas.inference.infrastructure.recent_calls import RedisRecentCalls
from maas.inference.infrastructure.replays import PostgresReplays
from maas.inference.infrastructure.routes import PostgresRoutes
from maas.inference.infrastructure.runtime_endpoint import derive_token, endpoint_of
from maas.inference.infrastructure.upstreams import OutgoingUpstreams
from maas.inference.interface.openai_bodies import MOST_BODY_BYTES, ROOM_KEY
from maas.model.public import Protocol, ServedVersion, ServedVersions, SuppliedModels
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.outgoing import OutgoingClient
from maas.shared.infrastructure.outgoing_clients import ClientsByReach
from maas.shared.infrastructure.outgoing_targets import Targets
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.unit_of_work import AuditPort, IdempotencyPort
from maas.user.public import Bookings, Budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceContext:
    """The wired context; `state` is what its routes find on `request.state`."""

    routes: Routes
    state: Mapping[str, object]
    metrics: CallMetrics
    close: Callable[[], Awaitable[None]]


def build_inference(
    settings: Settings,
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    supplied: SuppliedModels,
    served: ServedVersions,
    budgets: Budgets,
    bookings: Bookings,
    trail: Trail,
    recorded: RecordedEvents,
    kept: AnswerCache,
    captures: Captures,
) -> InferenceContext:
    """Build inference; nothing connects before the first call."""

    def unit_of_work() -> DeploymentUnitOfWork:
        return SqlDeploymentUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    upstreams = _upstreams(settings)
    routes = PostgresRoutes(
        database, supplied=supplied, served=served, find_local=_find_local(settings)
    )
    # Figures can wait, and what sessions and limits go by must not wait for them.
    gate = RedisGate(settings.redis.for_cache)
    metrics, recent = CallMetrics(), RedisRecentCalls(gate, clock=clock)
    replays = PostgresReplays(database, secret_key=settings.secret_key.get_secret_value())
    reports = (metrics, recent)
    meter = Meter(
        budgets=budgets,
        trail=trail,
        replays=replays,
        default_output=settings.inference.default_max_tokens,
        reports=reports,
    )
    wires: Mapping[Protocol, Wire] = {
        "openai": OpenAIWire(),
        "anthropic": AnthropicWire(now=lambda: int(clock.now().timestamp())),
    }
    bills = Bills(meter, wires, most=settings.inference.max_calls)
    watch = HealthWatch(
        upstreams,
        every_seconds=settings.inference.health_check_seconds,
        seconds=time.monotonic,
    )
    states = TargetStates(processes=settings.server.workers)
    ports = TryPorts(reports=metrics, clock=clock, seconds=time.monotonic, on_failing=watch.follow)
    calls = CallService(
        routes=routes,
        meter=meter,
        dispatch=Dispatcher(upstreams=upstreams, states=states, ports=ports),
        wires=wires,
        bills=bills,
        refusals=Refusals(reports=reports),
        kept=kept,
        captures=captures,
        clock=clock,
    )
    queries = PostgresDeploymentQueries(database)
    return InferenceContext(
        routes=routes,
        state={
            "calls": calls,
            "max_call_bytes": settings.inference.max_body_bytes,
            ROOM_KEY: Shares(MOST_BODY_BYTES),
            "deployments": DeploymentService(
                unit_of_work=unit_of_work, supplied=supplied, served=served, clock=clock
            ),
            "deployment_queries": queries,
            "receipts": ReceiptService(events=recorded, bookings=bookings),
            "deployment_metrics": DeploymentMetricsService(
                deployments=queries, routes=routes, recent=recent, states=states
            ),
        },
        metrics=metrics,
        # `recent` after the calls, whose ends it counts.
        close=_closing(
            *(watch.close, bills.close, meter.close, replays.close),
            *(recent.close, gate.close, upstreams.close),
        ),
    )


def _closing(*each: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def close_one_after_the_other() -> None:
        for close in each:
            await close()

    return close_one_after_the_other


def _upstreams(settings: Settings) -> OutgoingUpstreams:
    """Make clients that have room for as many streams as there may be calls."""
    most = settings.inference.max_calls
    clients = ClientsByReach.of(
        settings.outgoing, max_connections=most, max_connections_a_host=most
    )
    url = settings.runtime.url
    if url is None:
        return OutgoingUpstreams(clients)
    parts = urlsplit(url)
    target = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    runtime = OutgoingClient(
        Targets(private=frozenset({target})), max_connections=most, max_connections_a_host=most
    )
    return OutgoingUpstreams(clients, runtime)


def _find_local(settings: Settings) -> FindLocal:
    url, token = settings.runtime.url, derive_token(settings.secret_key.get_secret_value())
    loads_within = timedelta(seconds=settings.runtime.load_seconds)

    def find(version: ServedVersion) -> Endpoint | None:
        if url is None:
            return None
        return endpoint_of(
            url,
            token=token,
            version_id=version.id,
            model=version.model_name,
            loads_within=loads_within,
        )

    return find
