"""Whether this process lives, and whether it can serve: true answers, within a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, cast

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from maas.shared.interface.security import require_loopback_or
from maas.shared.interface.traffic import Traffic

CHECK_TIMEOUT_SECONDS = 0.9
METRICS_PERMISSION = "platform:metrics"

Status = Literal["up", "down", "behind", "degraded"]
Probe = Callable[[], Awaitable[Status]]
"""Asks one dependency how it is; raising means `down`."""

_log = structlog.get_logger("maas.health")


class CheckRead(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "up", "latency_ms": 0.7}]})

    status: Status
    latency_ms: float


class HealthRead(BaseModel):
    """`down` cannot serve; `degraded` serves with limits, `draining` is about to stop."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "up",
                    "version": "0.1.0",
                    "checks": {
                        "postgres": {"status": "up", "latency_ms": 0.7},
                        "redis": {"status": "up", "latency_ms": 0.3},
                        "audit": {"status": "up", "latency_ms": 0.1},
                    },
                }
            ]
        }
    )

    status: Literal["up", "degraded", "down", "draining"]
    version: str
    checks: dict[str, CheckRead]


class LiveRead(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "up"}]})

    status: Literal["up"]


class ApiVersionsRead(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": "0.1.0", "api_versions": ["v1"]}]}
    )

    version: str
    api_versions: list[str]


class MetricsPage(Protocol):
    content_type: ClassVar[str]

    async def render(self) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the health routes ask.

    `postgres` tells `behind` while migrations are missing, `audit` while events wait too long.
    """

    version: str
    traffic: Traffic
    metrics: MetricsPage
    postgres: Probe
    redis: Probe
    audit: Probe

    async def check(self, name: Literal["postgres", "redis", "audit"]) -> CheckRead:
        """Ask one dependency; slow counts as down."""
        probe: Probe = getattr(self, name)
        started = time.perf_counter()
        status: Status
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                status = await probe()
        except Exception as exc:  # noqa: BLE001  whatever it is, the answer is `down`
            _log.warning("health_check_failed", check=name, error=type(exc).__name__)
            status = "down"
        return CheckRead(status=status, latency_ms=round((time.perf_counter() - started) * 1000, 2))

    async def summary(self) -> HealthRead:
        postgres, redis, audit = await asyncio.gather(
            self.check("postgres"), self.check("redis"), self.check("audit")
        )
        if redis.status == "down":
            # Without Redis the platform serves from PostgreSQL.
            redis = redis.model_copy(update={"status": "degraded"})
        if audit.status == "down":
            # Nobody knows what waits, and where it waits is one of the other two.
            audit = audit.model_copy(update={"status": "behind"})
        overall: Literal["up", "degraded", "down", "draining"] = "up"
        if self.traffic.is_draining:
            overall = "draining"
        elif postgres.status != "up":
            overall = "down"
        elif redis.status != "up" or audit.status != "up":
            overall = "degraded"
        return HealthRead(
            status=overall,
            version=self.version,
            checks={"postgres": postgres, "redis": redis, "audit": audit},
        )


def _health(request: Request) -> Health:
    return cast("Health", request.scope["state"]["health"])


async def _health_of(request: Request) -> Health:
    return _health(request)


HealthOf = Annotated[Health, Depends(_health_of)]

router = APIRouter(tags=["operations"])

_LIVE = LiveRead(status="up")
_NOT_READY: dict[int | str, dict[str, object]] = {503: {"model": HealthRead}}


@router.get("/health/live")
async def is_live() -> LiveRead:
    """Answer while the event loop turns; asks nothing of anything."""
    return _LIVE


@router.get("/health/ready", responses=_NOT_READY)
async def is_ready(health: HealthOf, response: Response) -> HealthRead:
    """Answer 200 if PostgreSQL is there and migrated and the process is not stopping."""
    summary = await health.summary()
    if summary.status in {"down", "draining"}:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return summary


@router.get("/health")
async def get_health(health: HealthOf) -> HealthRead:
    """Tell how everything is, always with 200."""
    return await health.summary()


@router.get("/health/db", responses={503: {"model": CheckRead}})
async def get_database_health(health: HealthOf, response: Response) -> CheckRead:
    """Ask PostgreSQL; `behind` says that migrations are missing."""
    return _with_status(await health.check("postgres"), response)


@router.get("/health/redis", responses={503: {"model": CheckRead}})
async def get_redis_health(health: HealthOf, response: Response) -> CheckRead:
    """Ask Redis, without which the platform still serves."""
    return _with_status(await health.check("redis"), response)


def _with_status(check: CheckRead, response: Response) -> CheckRead:
    if check.status != "up":
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return check


@router.get("/api/version")
async def get_version(health: HealthOf) -> ApiVersionsRead:
    """List the versions of the API this server speaks."""
    return ApiVersionsRead(version=health.version, api_versions=["v1"])


@router.get("/metrics", response_class=Response, include_in_schema=False)
async def get_metrics(request: Request, health: HealthOf) -> Response:
    """Write Prometheus metrics for local processes, and for others who hold the permission."""
    await require_loopback_or(request, METRICS_PERMISSION)
    return Response(await health.metrics.render(), media_type=health.metrics.content_type)
