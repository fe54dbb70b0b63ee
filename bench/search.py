"""Searches over HTTP, as `maas_app` with row-level security on, in a tenant of a million people."""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import psutil

from bench.platform import RunningPlatform, cpu_ms_of
from maas.embedded.endpoints import find_running
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.domain.page import Position
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.interface.pagination import encode_cursor

PEOPLE = 1_000_000
MODELS = 100_000
REPEATS = 4
P95_GOAL_MS = 100.0

PEOPLE_QUERIES: Mapping[str, Sequence[str]] = {
    "one letter": ["a", "x", "ß", "|", "%", "_"],
    "two letters": ["an", "zq", "xq", ".w", "9@", "q|", "\\\\"],
    "three letters": ["ann", "j.a", "r99", "00@", "xyz", "123"],
    "eight and more": [
        "anna.web",
        "weber123",
        "ANNA.ADLER",
        "nobody.here",
        "example.com",
        "99999999",
    ],
    "Chinese": ["伟", "鱼", "王伟", "王鱼", "王伟芳"],
}
MODEL_QUERIES: Mapping[str, Sequence[str]] = {
    "one letter": ["l", "z", "ß", "_"],
    "two letters": ["ll", "zq", "7b", "-9"],
    "three and more": ["llama", "xyz", "qwen-999", "translates", "nowhere"],
    "Chinese": ["翻译", "鱼", "中"],
}

FILL_PEOPLE = f"""
    INSERT INTO accounts (id, username, email, display_name, password_hash, status,
                          home_tenant_id, created_at, updated_at, version)
    SELECT gen_random_uuid(), given || '.' || family || n,
           given || '.' || family || n || '@' || site || '.example.com',
           CASE WHEN n % 10 = 0 THEN substr('王李张刘陈杨黄赵吴周', 1 + n / 10 % 10, 1)
                    || substr('伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚', 1 + n / 100 % 20, 1)
                    || substr('伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚', 1 + n / 2000 % 20, 1)
                ELSE initcap(given) || ' ' || initcap(family) END,
           'x', 'active', '{DEFAULT_TENANT_ID}', now() - n * interval '1 minute', now(), 1
    FROM generate_series(1, {PEOPLE}) n, LATERAL (SELECT
        ('{{anna,ben,carla,david,emma,felix,greta,hugo,iris,jonas,klara,liam,mona,nils,olga,paul,'
         || 'rosa,sven,tina,victor}}')::text[] AS all_given,
        ('{{adler,baker,castro,dubois,eriksen,fischer,garcia,huber,ito,jansen,kowalski,lopez,meyer,'
         || 'novak,olsen,pereira,rossi,schmidt,tanaka,weber}}')::text[] AS all_family) names,
    LATERAL (SELECT all_given[1 + n % 20] AS given, all_family[1 + n / 20 % 20] AS family,
                    (ARRAY['sales', 'labs', 'works', 'group'])[1 + n % 4] AS site) made;
    INSERT INTO memberships (tenant_id, account_id, created_at)
    SELECT home_tenant_id, id, created_at FROM accounts WHERE password_hash = 'x';
"""  # noqa: S608  no input in it
FILL_MODELS = f"""
    INSERT INTO models (id, tenant_id, name, description, framework, visibility, owner_id,
                        created_by, created_at, updated_at, revision)
    SELECT gen_random_uuid(), '{DEFAULT_TENANT_ID}', family || '-' || n || '-7b',
           CASE n % 3 WHEN 0 THEN 'Answers questions of ' || family
                      WHEN 1 THEN '把中文翻译成英文 ' || n ELSE 'Summarises and translates' END,
           'gguf', 'tenant', id, id, now() - n * interval '1 minute', now(), 1
    FROM generate_series(1, {MODELS}) n, (SELECT id FROM accounts LIMIT 1) creator, LATERAL (SELECT
        ('{{llama,qwen,gemma,mistral,phi,falcon,yi,glm}}'::text[])[1 + n % 8] AS family) made;
"""  # noqa: S608  likewise
INDEXES = ("ix_accounts_search", "ix_models_words")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow:
    """Milliseconds from request to answer, and CPU of all of the platform's processes."""

    name: str
    p50_ms: float
    p95_ms: float
    cpu_ms: float


def measure_searches(platform: RunningPlatform) -> list[SearchRow]:
    headers = {"Authorization": f"Bearer {platform.sign_in()}"}
    asyncio.run(_fill(platform.data_dir))
    rows = []
    with httpx.Client(base_url=f"{platform.url}/api/v1", headers=headers, timeout=30) as client:
        for path, queries, half_way in (
            ("/admin/users", PEOPLE_QUERIES, PEOPLE // 2),
            ("/models", MODEL_QUERIES, MODELS // 2),
        ):
            rows += _measure(platform, client, path, queries, timedelta(minutes=half_way))
    return rows


async def _fill(data_dir: Path) -> None:
    running = find_running(data_dir)
    if running is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    environment = running.environment()
    owner = await _connect(environment["MAAS_DATABASE__OWNER_URL"])
    app = await _connect(environment["MAAS_DATABASE__URL"])
    # Row by row, the indexes would take five times as long as in one go.
    definitions = [
        await owner.fetchval("SELECT pg_get_indexdef($1::regclass)", name) for name in INDEXES
    ]
    await owner.execute(f"DROP INDEX {', '.join(INDEXES)}")
    await app.execute(f"SET maas.tenant_id = '{DEFAULT_TENANT_ID}'")
    await app.execute(FILL_PEOPLE)
    await app.execute(FILL_MODELS)
    await owner.execute("SET maintenance_work_mem = '512MB'")
    for definition in definitions:
        await owner.execute(definition)
    await owner.execute("VACUUM ANALYZE accounts, memberships, models")
    await app.close()
    await owner.close()


async def _connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))


def _measure(
    platform: RunningPlatform,
    client: httpx.Client,
    path: str,
    queries: Mapping[str, Sequence[str]],
    half_way: timedelta,
) -> list[SearchRow]:
    deep = encode_cursor(Position(SystemClock().now() - half_way, UUID(int=2**128 - 1)))
    rows, all_ms, all_cpu = [], [], []
    for name, texts in queries.items():
        ms: list[float] = []
        before = cpu_ms_of(psutil.Process(platform.process.pid))
        for _ in range(REPEATS):
            for text in texts:
                for cursor in ({}, {"cursor": deep}):
                    began = time.perf_counter()
                    answer = client.get(path, params={"q": text, **cursor})
                    ms.append((time.perf_counter() - began) * 1000)
                    answer.raise_for_status()
        cpu = (cpu_ms_of(psutil.Process(platform.process.pid)) - before) / len(ms)
        rows.append(_row(f"GET {path}, {name}", ms, cpu))
        all_ms += ms
        all_cpu += [cpu] * len(ms)
    rows.append(_row(f"GET {path}, all", all_ms, statistics.mean(all_cpu)))
    return rows


def _row(name: str, ms: list[float], cpu_ms: float) -> SearchRow:
    return SearchRow(
        name=name,
        p50_ms=statistics.median(ms),
        p95_ms=statistics.quantiles(ms, n=20)[-1],
        cpu_ms=cpu_ms,
    )
