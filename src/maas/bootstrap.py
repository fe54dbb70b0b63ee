"""The composition root: settings become a platform of wired contexts."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from maas.audit.infrastructure import (
    checkpoint_tables,
    erasure_table,
    rollup_tables,
    tombstone_tables,
    watch_tables,
    webhooks_tables,
)
from maas.audit.infrastructure import tables as audit_tables
from maas.audit.public import Actor, AuditScope, audit_scope
from maas.audit.wiring import AuditContext, build_alerting, build_audit, load_configured_signer
from maas.inference.infrastructure import captures_tables, deployment_tables, replay_tables
from maas.inference.keeping_wiring import build_keeping
from maas.inference.wiring import build_inference
from maas.model.application.digesting import DigestService
from maas.model.infrastructure import (
    alias_tables,
    collection_tables,
    fact_tables,
    provider_health_tables,
    provider_model_tables,
    provider_tables,
    search_tables,
    upload_tables,
)
from maas.model.infrastructure import tables as model_tables
from maas.model.wiring import build_digests, build_model, build_providers
from maas.shared.application.ports import Authenticator
from maas.shared.domain.call import Call, EventRecorder, serving
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure import idempotency as idempotency_tables
from maas.shared.infrastructure import sealing_tables
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database, mapper_registry
from maas.shared.infrastructure.idempotency import PostgresIdempotency
from maas.shared.infrastructure.rate_limits import RateLimits
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.sealing_keys import build_sealer
from maas.shared.infrastructure.settings import DEFAULT_DATA_DIR, Settings
from maas.shared.infrastructure.task_queue import TaskSender
from maas.shared.infrastructure.worker_connections import DIGEST_POOLS
from maas.user.application.accounts import AccountService
from maas.user.domain.account import EmailAddress, Username
from maas.user.infrastructure import (
    key_tables,
    mail_tables,
    quota_tables,
    sign_in_tables,
    usage_tables,
)
from maas.user.infrastructure import tables as user_tables
from maas.user.infrastructure.members import PostgresMembers
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.wiring import build_user

TABLES = (
    alias_tables,
    audit_tables,
    captures_tables,
    checkpoint_tables,
    collection_tables,
    deployment_tables,
    erasure_table,
    fact_tables,
    idempotency_tables,
    key_tables,
    mail_tables,
    model_tables,
    provider_health_tables,
    provider_model_tables,
    provider_tables,
    quota_tables,
    replay_tables,
    rollup_tables,
    sealing_tables,
    search_tables,
    sign_in_tables,
    tombstone_tables,
    upload_tables,
    usage_tables,
    user_tables,
    watch_tables,
    webhooks_tables,
)
"""Named so that every table is known to the metadata, whoever asks for it."""

METADATA = mapper_registry.metadata

FIRST_ADMIN_USERNAME = "admin"
FIRST_ADMIN_EMAIL = "admin@maas.localhost"
ONE_TIME_PASSWORD_BYTES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Everything a process of ours needs to serve; closed by `open_platform`."""

    settings: Settings
    database: Database
    redis: RedisGate
    clock: Clock
    authenticator: Authenticator
    recorder: EventRecorder
    rate_limits: RateLimits | None
    audit: AuditContext
    accounts: AccountService
    call_metrics: CollectorRegistry
    state: Mapping[str, object]


@asynccontextmanager
async def open_platform(settings: Settings) -> AsyncIterator[Platform]:
    """Wire the contexts over open resources, and close them again.

    Opening connects to nothing: a server that is down answers with its own clear problem when it is
    first needed, and the health routes say so.
    """
    database, redis, clock = Database(settings.database), RedisGate(settings.redis), SystemClock()
    secret_key = settings.secret_key.get_secret_value()
    rate_limits = _limits_of(settings, redis)
    idempotency = PostgresIdempotency(secret_key, clock=clock)
    data_dir = settings.data_dir or DEFAULT_DATA_DIR
    audit = _build_trail(settings, database=database, redis=redis, clock=clock)
    alerting = build_alerting(
        settings, database=database, audit=audit.port, idempotency=idempotency, clock=clock
    )
    user = build_user(
        database=database,
        redis=redis,
        audit=audit.port,
        idempotency=idempotency,
        clock=clock,
        settings=settings.auth,
        secret_key=secret_key,
        environment=settings.environment,
        rate_limits=rate_limits,
        offer=audit.trail.offer,
    )
    model = build_model(
        database=database,
        audit=audit.port,
        idempotency=idempotency,
        clock=clock,
        budgets=user.budgets,
        members=user.members,
        storage=settings.storage,
        data_dir=data_dir,
    )
    providers = build_providers(
        database=database,
        audit=audit.port,
        idempotency=idempotency,
        clock=clock,
        sealer=build_sealer(settings),
        outgoing=settings.outgoing,
    )
    keeping = build_keeping(settings, database=database)
    inference = build_inference(
        settings,
        database=database,
        audit=audit.port,
        idempotency=idempotency,
        clock=clock,
        supplied=providers.supplied,
        served=model.served,
        budgets=user.budgets,
        bookings=user.bookings,
        trail=audit.trail,
        recorded=audit.recorded,
        kept=keeping.answers,
        captures=keeping.captures,
    )
    keeping.captures.on_dropped = inference.metrics.capture_dropped
    await database.open()
    audit.upkeep.start()
    user.start()
    try:
        yield Platform(
            settings=settings,
            database=database,
            redis=redis,
            clock=clock,
            authenticator=user.authenticator,
            recorder=audit.recorder,
            rate_limits=rate_limits,
            audit=audit,
            accounts=user.accounts,
            call_metrics=inference.metrics.registry,
            state={
                **audit.state,
                **alerting.state,
                **user.state,
                **model.state,
                **providers.state,
                **keeping.state,
                **inference.state,
            },
        )
    finally:
        await inference.close()
        # After the calls, whose ends it keeps.
        await keeping.close()
        await alerting.close()
        await providers.close()
        await audit.close()
        await user.close()
        await redis.close()
        await database.close()


@asynccontextmanager
async def open_digests(settings: Settings) -> AsyncIterator[DigestService]:
    """Wire what makes files of uploads beside the worker, over no more connections than it needs.

    It is one upload at a time, and none of what answers requests is built for it.
    """
    database = Database(settings.database.model_copy(update=DIGEST_POOLS))
    redis, clock = RedisGate(settings.redis), SystemClock()
    audit = _build_trail(settings, database=database, redis=redis, clock=clock)
    budgets = PostgresBudgets(database)
    digests = build_digests(
        database=database,
        audit=audit.port,
        idempotency=PostgresIdempotency(settings.secret_key.get_secret_value(), clock=clock),
        clock=clock,
        budgets=budgets,
        members=PostgresMembers(database),
        recorder=audit.recorder,
        settings=settings,
    )
    await database.open()
    audit.upkeep.start()
    try:
        yield digests
    finally:
        await audit.close()
        await budgets.close()
        await redis.close()
        await database.close()


def _build_trail(
    settings: Settings, *, database: Database, redis: RedisGate, clock: Clock
) -> AuditContext:
    return build_audit(
        database=database,
        redis=redis,
        clock=clock,
        settings=settings.audit,
        data_dir=settings.data_dir or DEFAULT_DATA_DIR,
        kick=TaskSender(settings.redis, task="audit.flush", queue="audit").send,
        signer=load_configured_signer(settings),
    )


def _limits_of(settings: Settings, redis: RedisGate) -> RateLimits | None:
    if not settings.rate_limits.enabled:
        return None
    return RateLimits(settings.rate_limits, redis=redis, processes=settings.server.workers)


@asynccontextmanager
async def acting_as_operator(platform: Platform, action: str) -> AsyncIterator[AuditScope]:
    """Open a call and an audit scope for work that no request asked for."""
    with serving(Call(request_id=new_id().hex, recorder=platform.recorder)):
        async with audit_scope(action) as scope:
            scope.actor = Actor("system", None, name="operator")
            yield scope


async def ensure_configured_admin(platform: Platform) -> bool:
    """Make the administrator that MAAS_BOOTSTRAP__ADMIN_* asks for, once per database."""
    wanted = platform.settings.bootstrap
    if not (wanted.admin_username and wanted.admin_email and wanted.admin_password):
        return False
    async with acting_as_operator(platform, "admin.created"):
        return await platform.accounts.ensure_first_admin(
            username=Username(wanted.admin_username),
            email=EmailAddress(wanted.admin_email),
            password=wanted.admin_password.get_secret_value(),
            origin="configured",
        )


async def generate_first_admin(platform: Platform) -> str | None:
    """Make the first administrator with a password of ours; `None` if there was one before."""
    password = secrets.token_urlsafe(ONE_TIME_PASSWORD_BYTES)
    async with acting_as_operator(platform, "admin.created"):
        is_made = await platform.accounts.ensure_first_admin(
            username=Username(FIRST_ADMIN_USERNAME),
            email=EmailAddress(FIRST_ADMIN_EMAIL),
            password=password,
            origin="generated",
        )
    return password if is_made else None
