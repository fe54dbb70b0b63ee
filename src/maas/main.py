"""The HTTP application: routers, the edge around them, and the platform behind them."""

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib.metadata import version
from pkgutil import resolve_name
from types import FrameType
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from maas.audit.interface import alerts as audit_alerts
from maas.audit.interface import evidence as audit_evidence
from maas.audit.interface import export as audit_export
from maas.audit.interface import logs as audit_logs
from maas.audit.interface import rules as audit_rules
from maas.audit.interface import statistics as audit_statistics
from maas.audit.interface import webhooks as audit_webhooks
from maas.bootstrap import Platform, ensure_configured_admin, open_platform
from maas.inference.interface import openai
from maas.inference.interface import router as serving
from maas.inference.interface.openai_errors import render_openai_error
from maas.model.interface import router as models
from maas.shared.domain.errors import MaasError
from maas.shared.infrastructure.core_dumps import forbid_core_dumps
from maas.shared.infrastructure.logging import configure_logging
from maas.shared.infrastructure.metrics import Metrics
from maas.shared.infrastructure.pool_watch import PoolWatch
from maas.shared.infrastructure.reloading import SettingsWatch
from maas.shared.infrastructure.revisions import known_revisions
from maas.shared.infrastructure.settings import Settings, load_settings
from maas.shared.infrastructure.tracing_settings import TracingSettings
from maas.shared.interface import health
from maas.shared.interface.application import EdgeApplication
from maas.shared.interface.dispatch import under
from maas.shared.interface.handlers import install_handlers
from maas.shared.interface.health import Health, Status
from maas.shared.interface.middleware import EdgeMiddleware
from maas.shared.interface.problems import Faces, Renderer
from maas.shared.interface.reference import make_reference
from maas.shared.interface.shedding import SHEDDER_KEY, Shedder
from maas.shared.interface.traffic import Traffic
from maas.user.interface import (
    admin_router,
    api_keys,
    auth,
    jwks,
    leaving,
    profile,
    quotas,
    registration,
    sessions,
    usage,
)

log = structlog.get_logger(__name__)

YOUNG_OBJECTS = 10_000
"""How many new containers make the collector look at the young ones; Python's own figure is 700."""

ROUTERS: tuple[APIRouter, ...] = (
    auth.router,
    registration.router,
    sessions.auth_router,
    profile.router,
    leaving.self_router,
    sessions.self_router,
    api_keys.router,
    quotas.router,
    usage.router,
    *admin_router.routers,
    *models.routers,
    *serving.routers,
    audit_evidence.router,
    audit_export.router,
    audit_logs.router,
    audit_rules.router,
    audit_alerts.router,
    audit_webhooks.router,
    audit_statistics.router,
)
"""The routers of all contexts, served under `/api/v1`; their routes are `StrictRoute`s."""

FACES: Mapping[str, Renderer] = {"/v1": render_openai_error}
"""Path prefixes that write errors in another product's form, and how."""

TAGS = [
    {"name": "auth", "description": "Sign in, refresh, sign out."},
    {"name": "self", "description": "One's own account."},
    {"name": "admin", "description": "The tenant's people, roles and permissions."},
    {"name": "platform", "description": "All tenants, for who runs the platform."},
    {"name": "usage", "description": "What was used, and what it cost."},
    {"name": "models", "description": "What can be called: models, versions and their files."},
    {"name": "suppliers", "description": "Other people's models, and how they are called."},
    {"name": "serving", "description": "Names that calls go by, and what answers them."},
    {"name": "inference", "description": "Calling models, in OpenAI's wire format."},
    {"name": "audit", "description": "The trail: who did what, when, from where."},
    {"name": "operations", "description": "Health and versions."},
]
DESCRIPTION = """\
The back office of a company's own model platform: accounts, budgets, a model registry, an
OpenAI-compatible gateway and an audit trail that loses nothing.

Errors are problem documents (RFC 9457) with a stable `code`. Lists take `limit` and `cursor` and
answer `items` and `next_cursor`. Times are UTC. Every answer carries `X-Request-ID`, and
where requests are limited `RateLimit` and `RateLimit-Policy`.
"""
CORS_EXPOSED = [
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Concat",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "Upload-State",
    "X-Request-ID",
]


def make_app() -> FastAPI:
    """Build the application from the environment, for `uvicorn --factory`."""
    forbid_core_dumps()
    settings = load_settings()
    configure_logging(level=settings.effective_log_level, format=settings.log_format)
    app = create_app(settings, watches_config=True)
    _spare_the_collector()
    return app


def create_app(
    settings: Settings, *, platform: Platform | None = None, watches_config: bool = False
) -> FastAPI:
    """Build the application; it opens its platform when it starts, unless it is given one.

    If it watches `config.yaml`, these settings must be what is read of it and the environment.
    """
    server = settings.server
    traffic = Traffic(max_in_flight=server.max_in_flight)
    metrics = Metrics()
    faces = Faces(FACES)
    shedder = Shedder(
        traffic=traffic, metrics=metrics, faces=faces, trusted_proxies=server.trusted_proxies
    )
    has_docs = settings.docs_enabled
    app = EdgeApplication(
        title="MaaS",
        version=version("maas-platform"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url="/openapi.json" if has_docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=_lifespan(shedder, traffic=traffic, metrics=metrics, platform=platform),
        middleware=[
            _edge(
                settings.tracing,
                traffic=traffic,
                metrics=metrics,
                faces=faces,
                trusted_proxies=server.trusted_proxies,
                slow_request_ms=server.slow_request_ms,
            ),
            *_cors(server.cors_origins),
        ],
    )
    app.faces = faces
    app.state.settings = settings
    app.state.watches_config = watches_config
    app.state.max_body_bytes = server.max_body_bytes
    install_handlers(app, faces)
    app.router.routes += under("", (health.router, jwks.router))
    if has_docs:
        reference = make_reference(title="MaaS: the API", document="/openapi.json")
        app.router.routes += under("", (reference,))
    app.router.routes += under("/api/v1", ROUTERS)
    app.router.routes += under("/v1", (openai.router,))
    return app


def _edge(tracing: TracingSettings, **parts: Any) -> Middleware:
    """Choose the edge; what traces costs a second to load, so it is not named among the imports."""
    if tracing.endpoint is None:
        return Middleware(EdgeMiddleware, **parts)
    traced = resolve_name("maas.shared.interface.tracing:TracedEdge")
    return Middleware(traced, share=tracing.sample_ratio, **parts)


def _open_tracing(settings: TracingSettings) -> AbstractAsyncContextManager[None]:
    if settings.endpoint is None:
        return nullcontext()
    tracing_of = resolve_name("maas.shared.infrastructure.tracing:Tracing")

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        tracing = tracing_of(settings, process="api")
        try:
            yield
        finally:
            await asyncio.to_thread(tracing.close)

    return opened()


def _cors(origins: tuple[str, ...]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=CORS_EXPOSED,
            max_age=600,
        )
    ]


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, object]]]


def _lifespan(
    shedder: Shedder, *, traffic: Traffic, metrics: Metrics, platform: Platform | None
) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, object]]:
        own: Settings = app.state.settings
        opening = open_platform(own) if platform is None else nullcontext(platform)
        async with _open_tracing(own.tracing), opening as opened:
            _drain_on_stop(traffic)
            await _make_configured_admin(opened)
            metrics.read_at_scrape("audit", opened.audit.backlog)
            opened.audit.gap.on_unrecorded = metrics.event_unrecorded
            metrics.include("inference", opened.call_metrics)
            if opened.rate_limits is not None:
                opened.rate_limits.on_refused = metrics.request_limited
            watch = SettingsWatch(own, apply=_reload_into(opened))
            if app.state.watches_config:
                watch.start()
            pools = PoolWatch(opened.database, metrics)
            pools.start()
            yield {
                **opened.state,
                "authenticator": opened.authenticator,
                "recorder": opened.recorder,
                "rate_limits": opened.rate_limits,
                SHEDDER_KEY: shedder,
                "health": Health(
                    version=app.version,
                    traffic=traffic,
                    metrics=metrics,
                    postgres=_postgres_probe(opened),
                    redis=_redis_probe(opened),
                    audit=opened.audit.watch.status,
                ),
            }
            await pools.stop()
            watch.stop()

    return lifespan


def _reload_into(platform: Platform) -> Callable[[Settings], None]:
    def apply(settings: Settings) -> None:
        if platform.rate_limits is not None:
            platform.rate_limits.apply(settings.rate_limits)

    return apply


def _spare_the_collector() -> None:
    """Keep the garbage collector away from what lives as long as the process does.

    150,000 objects of modules, routes and schemas would be looked through again and again, which
    took a fifth of the CPU of a short request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


async def _make_configured_admin(platform: Platform) -> None:
    """Honour MAAS_BOOTSTRAP__ADMIN_* where nobody ran `maas migrate`; an outage puts it off."""
    try:
        await ensure_configured_admin(platform)
    except (SQLAlchemyError, MaasError, OSError) as exc:
        log.warning("configured_admin_not_made", error=type(exc).__name__)


def _postgres_probe(platform: Platform) -> health.Probe:
    """Ask for the schema's revision: older than this code's is `behind`, newer is no trouble.

    During an upgrade the schema moves first, and the old code goes on serving on it.
    """
    older = known_revisions().older

    async def probe() -> Status:
        row = await platform.database.fetchrow("SELECT version_num FROM alembic_version")
        return "behind" if row is None or row["version_num"] in older else "up"

    return probe


def _redis_probe(platform: Platform) -> health.Probe:
    async def ping(client: Redis) -> object:
        return await client.ping()

    async def probe() -> Status:
        await platform.redis.call(ping)
        return "up"

    return probe


def _drain_on_stop(traffic: Traffic) -> None:
    """Tell load balancers first: `not ready` from the moment the server is asked to stop."""
    serve_stop = signal.getsignal(signal.SIGTERM)
    if not callable(serve_stop) or threading.current_thread() is not threading.main_thread():
        return

    def drain_then_stop(number: int, frame: FrameType | None) -> None:
        traffic.drain()
        serve_stop(number, frame)

    signal.signal(signal.SIGTERM, drain_then_stop)
