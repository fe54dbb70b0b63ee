"""`maas doctor`: looks at a running installation's servers and settings, and says what to mend."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Literal, TypeAlias

import aiohttp
import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from maas.inference.infrastructure.runtime_endpoint import derive_token
from maas.sealed import count_lost
from maas.shared.infrastructure.database import app_arguments, system_arguments
from maas.shared.infrastructure.revisions import known_revisions
from maas.shared.infrastructure.sealing_faults import find_key_faults
from maas.shared.infrastructure.sealing_key_file import is_exposed
from maas.shared.infrastructure.sealing_keys import key_file_path
from maas.shared.infrastructure.setting_layers import FLAT_NAMES
from maas.shared.infrastructure.setting_sections import PREFIX
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.worker_connections import WORKER_PROCESSES, count_connections

MIN_FREE_BYTES = 1024**3
CONNECT_SECONDS = 5
OLDEST_POSTGRES = 160000
OLDEST_REDIS = (7, 2)
OTHER_VARIABLES = frozenset(
    {"MAAS_API_KEY", "MAAS_API_URL", "MAAS_PG_BIN", "MAAS_PYTHON", "MAAS_VALKEY_BIN"}
)
"""Read by `maas up`, `maas model` and `make` themselves."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `text` says what to do where it is not in order."""

    level: Literal["ok", "warning", "error"]
    text: str
    is_lasting: bool = False
    """Whether waiting will not mend it: a matter of settings, not of a server that is away."""


Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_OPEN_TO_ALL = """
    SELECT current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0)
"""

UNDELIVERED_DAYS = 7
_GIVEN_PASSWORDS = """
    SELECT DISTINCT a.username FROM accounts a JOIN membership_roles r ON r.account_id = a.id
    WHERE r.role_name = 'platform_admin' AND a.password_change_required AND a.status = 'active'
    ORDER BY 1 LIMIT 10
"""
_UNDELIVERED = """
    SELECT count(*) AS mails, (array_agg(reason ORDER BY failed_at DESC))[1] AS reason
    FROM undelivered_mails WHERE failed_at > now() - make_interval(days => $1)
"""

_HELD = "SELECT began_at::text FROM collection_progress WHERE name = 'held'"

_PARTITIONS = """
    SELECT min(ahead) AS ahead, sum(partitions) AS partitions, sum(size) AS size FROM (
        SELECT count(*) FILTER (WHERE right(c.relname, 7)
                > to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY_MM')) AS ahead,
            count(c.oid) AS partitions, sum(pg_total_relation_size(c.oid)) AS size
        FROM pg_inherits l JOIN pg_class p ON p.oid = l.inhrelid
            LEFT JOIN pg_inherits i ON i.inhparent = p.oid
            LEFT JOIN pg_class c ON c.oid = i.inhrelid
        WHERE l.inhparent = to_regclass('audit_log') GROUP BY p.oid
    ) classes
"""


async def examine(settings: Settings, *, worker_processes: int = WORKER_PROCESSES) -> list[Finding]:
    """Look at everything, each check on its own, so that one failure hides no other."""
    checks: list[Callable[[Settings], Awaitable[list[Finding]]]] = [
        partial(_check_database, worker_processes=worker_processes),
        _check_system_role,
        _check_redis,
        _check_settings,
        _check_sealing,
        _check_runtime,
    ]
    return [finding for check in checks for finding in await check(settings)]


async def find_misconfigurations(
    settings: Settings, *, worker_processes: int = WORKER_PROCESSES
) -> list[Finding]:
    """Look at what a server tells of itself; one that is down says nothing, and is no reason.

    Production refuses to start on these: a Redis that may evict or forget audit events, and more
    connections than PostgreSQL takes.
    """
    findings = await _check_redis(settings)
    findings += await _check_database(settings, worker_processes=worker_processes)
    return [finding for finding in findings if finding.level == "error" and finding.is_lasting]


async def _check_database(settings: Settings, *, worker_processes: int) -> list[Finding]:
    try:
        connection = await asyncio.wait_for(
            asyncpg.connect(**app_arguments(settings.database)), CONNECT_SECONDS
        )
    except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
        return [
            Finding(
                "error",
                f"PostgreSQL does not let us in ({exc}). Is it running, is MAAS_DATABASE__URL "
                "right, and has `maas migrate` been run?",
            )
        ]
    try:
        findings = await _examine_database(connection, settings)
        return findings + await _check_connections(connection, settings, worker_processes)
    finally:
        await connection.close()


async def _examine_database(connection: Connection, settings: Settings) -> list[Finding]:
    findings = []
    version = int(await connection.fetchval("SHOW server_version_num"))
    if version < OLDEST_POSTGRES:
        findings.append(
            Finding("error", "PostgreSQL is older than 16: upgrade it.", is_lasting=True)
        )
    else:
        findings.append(Finding("ok", f"PostgreSQL {version // 10000} answers."))
    findings.append(await _check_migrations(connection))
    row = await connection.fetchrow(
        "SELECT rolsuper OR rolbypassrls AS is_free FROM pg_roles WHERE rolname = current_user"
    )
    if row is None or row["is_free"]:
        findings.append(
            Finding(
                "error",
                "Row-level security does not bind the API's role: use maas_app.",
                is_lasting=True,
            )
        )
    if settings.database.owner_url is None or settings.database.system_url is None:
        text = (
            "One database URL serves for everything, so the API could step back up from maas_app. "
            "Give MAAS_DATABASE__OWNER_URL and __SYSTEM_URL logins of their own in production."
        )
        findings.append(Finding("warning", text))
    return findings


async def _check_connections(
    connection: Connection, settings: Settings, worker_processes: int
) -> list[Finding]:
    limit = int(await connection.fetchval(_OPEN_TO_ALL))
    pools = settings.database
    of_api = settings.server.workers * (pools.pool_size + pools.read_pool_size)
    of_worker = count_connections(processes=worker_processes)
    if of_api + of_worker <= limit:
        return []
    text = (
        f"The API may open {of_api} connections and a worker with --concurrency "
        f"{worker_processes} another {of_worker}, PostgreSQL takes {limit}: lower "
        "MAAS_DATABASE__POOL_SIZE, __READ_POOL_SIZE or --concurrency, or raise max_connections."
    )
    return [Finding("error", text, is_lasting=True)]


async def _check_migrations(connection: Connection) -> Finding:
    head = known_revisions().head
    try:
        current = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.PostgresError:
        current = None
    if current == head:
        return Finding("ok", f"The database is at revision {head}.")
    return Finding("error", f"The database is at {current}, not {head}: run `maas migrate`.")


async def _check_system_role(settings: Settings) -> list[Finding]:
    try:
        connection = await asyncio.wait_for(
            asyncpg.connect(**system_arguments(settings.database)), CONNECT_SECONDS
        )
    except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
        text = f"The worker cannot become maas_system ({exc}): check MAAS_DATABASE__SYSTEM_URL."
        return [Finding("error", text)]
    findings = [Finding("ok", "The worker can act as maas_system.")]
    try:
        findings += await _check_given_passwords(connection) + await _check_mails(connection)
        findings += await _check_collection(connection)
        findings.append(await _check_partitions(connection))
    except asyncpg.PostgresError:
        # Not migrated yet, or gone again; both are said elsewhere.
        return findings
    finally:
        await connection.close()
    return findings


async def _check_given_passwords(connection: Connection) -> list[Finding]:
    names = await connection.fetch(_GIVEN_PASSWORDS)
    return [
        Finding(
            "warning",
            f"{row['username']} administers the platform with a password that was given to them "
            "and never changed: sign in and change it (POST /api/v1/users/password).",
        )
        for row in names
    ]


async def _check_mails(connection: Connection) -> list[Finding]:
    row = await connection.fetchrow(_UNDELIVERED, UNDELIVERED_DAYS)
    if row is None or row["mails"] == 0:
        return []
    text = (
        f"{row['mails']} mails of the last {UNDELIVERED_DAYS} days could not be delivered; the "
        f"newest: {row['reason']} (see the table undelivered_mails)"
    )
    return [Finding("warning", text)]


async def _check_collection(connection: Connection) -> list[Finding]:
    held = await connection.fetchval(_HELD)
    if held is None:
        return []
    text = (
        f"No file of a model is deleted since the restore of {held}: once the store is this "
        "platform's alone, run `maas resume-collection`."
    )
    return [Finding("warning", text)]


async def _check_partitions(connection: Connection) -> Finding:
    row = await connection.fetchrow(_PARTITIONS)
    size = (row["size"] or 0) // 1024**2 if row else 0
    if row is None or not row["ahead"]:
        text = (
            "The audit log has no partition for next month: the worker makes them, so see that "
            "`maas worker` and `maas beat` run, or run `maas audit retention`."
        )
        return Finding("error", text)
    return Finding(
        "ok",
        f"The audit log has partitions {row['ahead']} months ahead; {row['partitions']} hold "
        f"{size} MiB.",
    )


async def _check_redis(settings: Settings) -> list[Finding]:
    client: Redis = Redis.from_url(
        settings.redis.url.get_secret_value(),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=CONNECT_SECONDS,
    )
    try:
        server = await client.info("server")
        held = await client.config_get("maxmemory-policy", "appendonly", "appendfsync")
    except ResponseError:
        text = (
            "Redis does not tell its settings (CONFIG GET is refused), so nobody knows whether it "
            "keeps what it acknowledges: allow CONFIG|GET, or set MAAS_REDIS__ALLOW_EVERYSEC=true "
            "if you know that it never evicts."
        )
        is_wrong = settings.environment == "production" and not settings.redis.allow_everysec
        return [Finding("error" if is_wrong else "warning", text, is_lasting=True)]
    except (RedisError, OSError) as exc:
        text = f"Redis does not answer ({exc}). Is it running, and is MAAS_REDIS__URL right?"
        return [Finding("error", text)]
    finally:
        await client.aclose()
    findings = []
    version = tuple(int(part) for part in str(server["redis_version"]).split(".")[:2])
    if version < OLDEST_REDIS:
        text = "Redis is older than 7.2: upgrade it, or use Valkey."
        findings.append(Finding("error", text, is_lasting=True))
    else:
        findings.append(Finding("ok", "Redis answers."))
    is_production = settings.environment == "production"
    if held.get("maxmemory-policy") != "noeviction":
        text = "Redis may evict audit events: set maxmemory-policy to noeviction."
        findings.append(Finding("error" if is_production else "warning", text, is_lasting=True))
    if held.get("appendonly") != "yes" or held.get("appendfsync") != "always":
        text = (
            "Redis may lose its last second: set appendonly yes and appendfsync always, or say "
            "MAAS_REDIS__ALLOW_EVERYSEC=true if that is meant."
        )
        is_wrong = is_production and not settings.redis.allow_everysec
        findings.append(Finding("error" if is_wrong else "warning", text, is_lasting=True))
    return findings


async def _check_settings(settings: Settings) -> list[Finding]:
    findings = []
    folder = settings.data_dir or Path()
    free = shutil.disk_usage(folder if folder.is_dir() else Path()).free
    if free < MIN_FREE_BYTES:
        text = f"Only {free // 1024**2} MiB are free under the data folder: make room."
        findings.append(Finding("warning", text))
    has_audit_key = settings.audit.signing_key or settings.audit.signing_key_file
    if settings.environment == "production" and not has_audit_key:
        text = (
            "The audit trail is signed with a key that follows from MAAS_SECRET_KEY, and is "
            "another one whenever that changes: give MAAS_AUDIT__SIGNING_KEY_FILE its own key."
        )
        findings.append(Finding("warning", text))
    unknown = sorted(name for name in os.environ if _is_unknown(name))
    findings += [Finding("warning", f"{name} is not a setting: misspelt?") for name in unknown]
    return findings


async def _check_sealing(settings: Settings) -> list[Finding]:
    findings = []
    path = key_file_path(settings)
    if settings.sealing.keys is None and is_exposed(path):
        text = f"{path} may be read by others, who can open kept secrets with it: chmod it to 0600."
        findings.append(Finding("warning", text))
    faults = await find_key_faults(settings)
    if faults:
        return [*findings, *(Finding("error", fault, is_lasting=True) for fault in faults)]
    try:
        lost = await asyncio.wait_for(count_lost(settings), CONNECT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        # Away or not migrated, which is said elsewhere.
        return findings
    if lost:
        text = (
            f"{lost} kept secrets are sealed under keys that are not here, and do not open: put "
            f"back what {path} was, or MAAS_SEALING__KEYS (`maas keys ls`)."
        )
        return [*findings, Finding("error", text)]
    return [*findings, Finding("ok", "Kept secrets are sealed under keys that are here.")]


async def _check_runtime(settings: Settings) -> list[Finding]:
    """Look at the runtime of own weights, where there is one."""
    url = settings.runtime.url
    if url is None:
        return []
    token = derive_token(settings.secret_key.get_secret_value())
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CONNECT_SECONDS)) as client,
            client.get(
                f"{url.rstrip('/')}/models", headers={"authorization": f"Bearer {token}"}
            ) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError):
        text = f"The runtime does not answer at {url}: is `maas runtime` running there?"
        return [Finding("error", text)]
    if status == HTTPStatus.UNAUTHORIZED:
        text = f"The runtime at {url} has another MAAS_SECRET_KEY, and answers nobody here."
        return [Finding("error", text)]
    if status != HTTPStatus.OK:
        return [Finding("error", f"What answers at {url} is no runtime of ours.")]
    return [Finding("ok", "The runtime answers.")]


def _is_unknown(name: str) -> bool:
    if not name.startswith(PREFIX) or name in FLAT_NAMES or name in OTHER_VARIABLES:
        return False
    return name.removeprefix(PREFIX).partition("__")[0].lower() not in Settings.model_fields
