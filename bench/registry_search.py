"""The registry searched over HTTP, as `maas_app` with row-level security on: a million versions.

Each filter is asked alone and with others, for values that are common, rare, only long ago and
nowhere, in both orders, from the start of the list and from its middle.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import httpx
import psutil

from bench.platform import RunningPlatform, cpu_ms_of
from bench.trail import TrailRow
from bench.trail_data import superuser_arguments
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.shared.domain.page import Position
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.interface.pagination import encode_cursor

MODELS: Final = 100_000
VERSIONS_EACH: Final = 10
NEIGHBOURS: Final = 10_000
"""So many models has another tenant, whose words are the same."""

SPAN: Final = timedelta(minutes=MODELS * VERSIONS_EACH)
P95_GOAL_MS: Final = 100.0
REPEATS: Final = 3
OWNERS: Final = 200
INDEXES: Final = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
    FROM pg_index WHERE indrelid = ANY ('{version_search,models}'::regclass[])
        AND NOT indisprimary AND NOT indisunique
"""

# What is common and what is rare goes by the number; old versions are archived, new ones uploading.
FILL: Final = f"""
    INSERT INTO models (id, tenant_id, name, description, framework, task, licence, visibility,
        owner_id, created_by, created_at, updated_at, revision)
    SELECT md5('m' || $2 || n)::uuid, $1, family || '/' || size || '-' || n,
        CASE n % 3 WHEN 0 THEN 'Answers questions of ' || family
                   WHEN 1 THEN '把中文翻译成英文 ' || n ELSE 'Summarises and translates' END,
        (ARRAY['gguf','gguf','safetensors','safetensors','onnx','other'])[1 + n / 9 % 6],
        CASE WHEN n % 5000 = 7 THEN 'robotics'
             ELSE (ARRAY['chat','embedding','text-generation'])[1 + n / 7 % 3] END,
        (ARRAY['Apache-2.0','MIT','llama3.1',NULL])[1 + n / 11 % 4],
        (ARRAY['tenant','tenant','tenant','private','public'])[1 + n / 13 % 5],
        owner, owner, now() - n * interval '{VERSIONS_EACH} minutes', now(), 1
    FROM generate_series(1, $3::integer) n, LATERAL (SELECT
        (ARRAY['llama','llama','qwen2','qwen2','gemma3','mistral','phi3','bert'])[1 + n % 8]
            AS family, (ARRAY['1b','7b','70b'])[1 + n / 3 % 3] AS size,
        md5('owner' || n % {OWNERS})::uuid AS owner) made
"""  # noqa: S608  no input in it
TAGS: Final = """
    INSERT INTO model_tags (model_id, tag, tenant_id)
    SELECT md5('m' || $2 || n)::uuid, tag, $1 FROM generate_series(1, $3::integer) n, LATERAL (
        SELECT unnest(ARRAY['nightly']) AS tag WHERE n % 3 = 0
        UNION ALL SELECT 'evaluated' WHERE n % 10 = 1
        UNION ALL SELECT 'pilot' WHERE n % 10000 = 5) tags
"""
VERSIONS: Final = f"""
    INSERT INTO model_versions (id, tenant_id, model_id, name, status, file_count, size,
        source_kind, created_by, created_at, updated_at, revision)
    SELECT md5(m.id::text || v)::uuid, $1, m.id, '1.' || v, status, 1,
        (m.row * 7919 + v) % 1000 * 50000000::bigint, 'uploaded', m.owner_id,
        m.created_at + v * interval '1 minute', now(), 1
    FROM (SELECT *, row_number() OVER (ORDER BY created_at DESC) AS row
          FROM models WHERE tenant_id = $1) m, generate_series(1, {VERSIONS_EACH}) v,
    LATERAL (SELECT CASE WHEN m.row < $2 / 100 AND v = 10 THEN 'uploading'
        WHEN m.row > $2 / 2 AND v < 6 THEN 'archived'
        WHEN (m.row + v) % 97 = 0 THEN 'failed' WHEN v < 4 THEN 'deprecated' ELSE 'ready' END
        AS status) s
"""  # noqa: S608  likewise
FACTS: Final = """
    INSERT INTO version_facts (version_id, tenant_id, format, architecture, quantisation, dtype,
        parameters, context_length)
    SELECT v.id, v.tenant_id, m.framework,
        CASE WHEN m.name LIKE '%/7b-%0' AND m.name LIKE '%00' THEN 'mamba'
             ELSE split_part(m.name, '/', 1) END,
        CASE m.framework WHEN 'gguf'
            THEN (ARRAY['Q4_K_M','Q8_0','Q5_K_M','F16'])[1 + right(v.name, 1)::integer % 4] END,
        CASE m.framework WHEN 'gguf' THEN 'F16' ELSE 'BF16' END,
        CASE split_part(split_part(m.name, '/', 2), '-', 1)
            WHEN '1b' THEN 1100000000 WHEN '7b' THEN 7200000000 ELSE 70600000000 END,
        CASE WHEN m.name LIKE 'llama%' THEN 131072 ELSE 8192 END
    FROM model_versions v JOIN models m ON m.id = v.model_id
    WHERE m.framework <> 'other' AND v.tenant_id = $1
"""
ALIASES: Final = """
    INSERT INTO model_aliases (model_id, name, tenant_id, version_id, version, sequence)
    SELECT v.model_id, a.name, v.tenant_id, v.id, v.name, 1
    FROM model_versions v JOIN models m ON m.id = v.model_id, LATERAL (
        SELECT 'production' AS name WHERE v.name = '1.9' AND m.name LIKE ANY ('{%1,%4,%7}')
        UNION ALL SELECT 'canary' WHERE v.name = '1.8' AND m.name LIKE '%999') a
    WHERE v.status = 'ready' AND v.tenant_id = $1
"""
ROWS: Final = """
    INSERT INTO version_search (version_id, tenant_id, model_id, created_at, model_created_at,
        is_live, model_name, framework, task, licence, visibility, owner_id, tags, version, aliases,
        status, size, architecture, quantisation, dtype, parameters, context_length)
    SELECT v.id, v.tenant_id, v.model_id, v.created_at, m.created_at, true, m.name, m.framework,
        m.task, m.licence, m.visibility, m.owner_id, coalesce(t.tags, '{}'), v.name,
        coalesce(a.aliases, '{}'), v.status, v.size, f.architecture, f.quantisation, f.dtype,
        f.parameters, f.context_length
    FROM model_versions v JOIN models m ON m.id = v.model_id
    LEFT JOIN version_facts f ON f.version_id = v.id
    LEFT JOIN (SELECT model_id, array_agg(tag) AS tags FROM model_tags GROUP BY 1) t
        ON t.model_id = m.id
    LEFT JOIN (SELECT version_id, array_agg(name) AS aliases FROM model_aliases GROUP BY 1) a
        ON a.version_id = v.id
    WHERE v.tenant_id = $1 ORDER BY v.created_at
"""

Query: TypeAlias = Mapping[str, str | Sequence[str]]

QUESTIONS: Final[Mapping[str, Sequence[Query]]] = {
    "no filter": [{}],
    "text": [
        {"q": "llama"}, {"q": "phi3/7"}, {"q": "翻译"}, {"q": "-99999"}, {"q": "7"}, {"q": "ß"},
        {"q": "nowhere"},
    ],
    "tag": [{"tag": "nightly"}, {"tag": "evaluated"}, {"tag": "pilot"}, {"tag": "none"},
            {"tag": ["nightly", "evaluated"]}, {"tag": ["nightly", "pilot"]}],
    "framework, task, licence": [
        {"framework": "gguf"}, {"framework": "tensorflow"}, {"task": "chat"}, {"task": "robotics"},
        {"licence": "MIT"}, {"framework": "onnx", "task": "robotics"},
        {"framework": "gguf", "licence": "llama3.1", "task": "embedding"},
    ],
    "owner, visibility": [
        {"visibility": "public"}, {"visibility": "private", "licence": "MIT"},
        {"owner_id": "OWNER"}, {"owner_id": str(UUID(int=7))},
        {"owner_id": "OWNER", "visibility": "private"},
    ],
    "status": [{"status": status} for status in ("ready", "archived", "failed", "uploading",
                                                 "validating")],
    "size": [
        {"min_size": "49000000000"}, {"max_size": "50000000"}, {"min_size": "99999999999"},
        {"min_size": "4000000000", "max_size": "4100000000"},
        {"min_size": "4000000000", "max_size": "4100000000", "status": "failed"},
    ],
    "alias": [{"alias": "production"}, {"alias": "canary"}, {"alias": "none"},
              {"alias": "production", "framework": "onnx"}],
    "architecture, quantisation, dtype": [
        {"architecture": "llama"}, {"architecture": "mamba"}, {"quantisation": "Q4_K_M"},
        {"dtype": "BF16"}, {"dtype": "BF16", "quantisation": "Q8_0"},
        {"architecture": "llama", "quantisation": "Q8_0", "dtype": "F16"},
    ],
    "parameters, context": [
        {"min_parameters": "8000000000"}, {"min_parameters": "80000000000"},
        {"max_parameters": "2000000000", "architecture": "llama"},
        {"min_context_length": "100000"}, {"min_context_length": "100000", "architecture": "bert"},
    ],
    "all sorts together": [
        {"q": "llama", "architecture": "qwen2"}, {"q": "qwen", "status": "failed"},
        {"tag": "nightly", "status": "uploading", "framework": "gguf"},
        {"q": "7b", "min_size": "49900000000", "quantisation": "F16"},
        {"status": "archived", "alias": "production"},
        {"architecture": "gemma3", "licence": "MIT", "tag": "evaluated", "status": "ready",
         "max_size": "1000000000"},
    ],
}  # fmt: skip


def measure_registry_search(platform: RunningPlatform) -> list[TrailRow]:
    """Fill a platform's registry past the triggers, and ask it everything."""
    asyncio.run(fill(superuser_arguments(platform.data_dir)))
    return ask_all(platform)


async def fill(connect: dict[str, Any]) -> None:
    connection = await asyncpg.connect(**connect)
    try:
        indexes = await connection.fetch(INDEXES)
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET synchronous_commit = off; SET work_mem = '256MB'")
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        for tenant, name, models in (
            (DEFAULT_TENANT_ID, "own", MODELS),
            (new_id(), "neighbour", NEIGHBOURS),
        ):
            await connection.execute(FILL, tenant, name, models, timeout=600)
            await connection.execute(TAGS, tenant, name, models, timeout=600)
            await connection.execute("ANALYZE models")
            await connection.execute(VERSIONS, tenant, models, timeout=600)
            await connection.execute("ANALYZE model_versions")
            await connection.execute(FACTS, tenant, timeout=600)
            await connection.execute(ALIASES, tenant, timeout=600)
            await connection.execute(ROWS, tenant, timeout=600)
        await connection.execute("SET maintenance_work_mem = '1GB'")
        for index in indexes:
            await connection.execute(index["definition"], timeout=900)
        tables = "models, model_tags, model_versions, version_facts, model_aliases, version_search"
        await connection.execute(f"VACUUM ANALYZE {tables}", timeout=600)
    finally:
        await connection.close()


def ask_all(platform: RunningPlatform) -> list[TrailRow]:
    headers = {"Authorization": f"Bearer {platform.sign_in()}"}
    supervisor = psutil.Process(platform.process.pid)
    rows, all_ms = [], list[float]()
    with httpx.Client(base_url=f"{platform.url}/api/v1", headers=headers, timeout=60) as client:
        owner = client.get("/models", params={"limit": 1}).raise_for_status().json()
        owner_id = owner["items"][0]["owner_id"]
        for (name, queries), path in itertools.product(
            QUESTIONS.items(), ("/models", "/model-versions", "/models/facets")
        ):
            asked = [_with_owner(query, owner_id) for query in queries]
            row, ms = _ask(client, supervisor, f"GET {path}, {name}", path, asked)
            rows.append(row)
            all_ms += ms
    everything = _row(f"all of these, {len(all_ms):,} answers", all_ms, None)
    return [*rows, everything]


def _with_owner(query: Query, owner_id: str) -> Query:
    return {name: owner_id if value == "OWNER" else value for name, value in query.items()}


def _ask(
    client: httpx.Client,
    supervisor: psutil.Process,
    name: str,
    path: str,
    queries: Sequence[Query],
) -> tuple[TrailRow, list[float]]:
    half_way = Position(SystemClock().now() - SPAN / 2, UUID(int=2**128 - 1))
    starts: Sequence[Query] = [{}, {"cursor": encode_cursor(half_way)}]
    orders: Sequence[Query] = [{"order": order} for order in ("newest", "oldest")]
    if path.endswith("/facets"):
        starts, orders = [{}], [{}]
    ms, before = list[float](), cpu_ms_of(supervisor)
    for _, query, start, order in itertools.product(range(REPEATS), queries, starts, orders):
        began = time.perf_counter()
        answer = client.get(path, params={**query, **start, **order})
        ms.append((time.perf_counter() - began) * 1000)
        answer.raise_for_status()
    return _row(name, ms, (cpu_ms_of(supervisor) - before) / len(ms)), ms


def _row(name: str, ms: list[float], cpu_ms: float | None) -> TrailRow:
    p95 = statistics.quantiles(ms, n=20)[-1]
    cpu = "" if cpu_ms is None else f", CPU {cpu_ms:.1f} ms"
    return TrailRow(
        name=name,
        figure=f"p50 {statistics.median(ms):.1f}, p95 {p95:.1f} ms{cpu}",
        goal=f"p95 <= {P95_GOAL_MS:.0f} ms",
        is_met=p95 <= P95_GOAL_MS,
    )
