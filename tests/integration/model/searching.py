"""Models and versions of every kind, what is asked of them, and what then is to be found."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

import asyncpg

from maas.model.application.search import Order, RegistryFilter
from maas.shared.domain.ids import AccountId, new_id
from maas.shared.domain.page import PageRequest
from maas.shared.domain.principal import Principal

MODELS, VERSIONS_EACH = 40, 3
SEED = 7
QUESTIONS = 12

FRAMEWORKS = ("gguf", "safetensors", "onnx")
TASKS = (None, "chat", "text embedding", "it's\\quoted")
LICENCES = (None, "Apache-2.0", "MIT")
VISIBILITIES = ("tenant", "tenant", "public", "private")
STATUSES = ("pending", "ready", "deprecated", "failed")
ARCHITECTURES = (None, "llama", "gemma3")
QUANTISATIONS = (None, "Q4_K_M", "F16")
TAGS = ("nightly", "eval:ok", "数据")
WORDS = ("llama", "Bot", "百分之百", "100%_x", "mini")

Row = Mapping[str, Any]
Superuser = "asyncpg.Connection[asyncpg.Record]"

INSERT_MODEL = """
    INSERT INTO models (id, tenant_id, name, description, framework, task, licence, visibility,
        owner_id, created_by, created_at, updated_at, deleted_at, revision)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, clock_timestamp(), now(), $10, 1)
"""
INSERT_VERSION = """
    INSERT INTO model_versions (id, tenant_id, model_id, name, status, file_count, size,
        source_kind, created_by, created_at, updated_at, revision)
    VALUES ($1, $2, $3, $4, 'pending', 0, $5, 'uploaded', $6, clock_timestamp(), now(), 1)
"""
INSERT_FACTS = """
    INSERT INTO version_facts (version_id, tenant_id, format, architecture, quantisation, dtype,
        parameters, context_length)
    VALUES ($1, $2, 'gguf', $3, $4, 'F16', $5, $6)
"""
INSERT_ALIAS = """
    INSERT INTO model_aliases (model_id, name, tenant_id, version_id, version, sequence)
    VALUES ($1, $2, $3, $4, '0', 1)
"""
ALL_ROWS = """
    SELECT v.id, v.created_at, v.status, v.size, v.name AS version, m.id AS model_id,
        m.created_at AS model_created_at, m.name, m.description, m.framework, m.task, m.licence,
        m.visibility, m.owner_id, m.deleted_at, f.architecture, f.quantisation, f.dtype,
        f.parameters, f.context_length,
        ARRAY(SELECT tag FROM model_tags t WHERE t.model_id = m.id) AS tags,
        ARRAY(SELECT a.name FROM model_aliases a WHERE a.version_id = v.id) AS aliases
    FROM model_versions v JOIN models m ON m.id = v.model_id
    LEFT JOIN version_facts f ON f.version_id = v.id WHERE v.tenant_id = $1
"""
ALL_MODELS = """
    SELECT m.*, ARRAY(SELECT tag FROM model_tags t WHERE t.model_id = m.id) AS tags
    FROM models m WHERE tenant_id = $1
"""


async def fill(
    superuser: "asyncpg.Connection[asyncpg.Record]", principal: Principal, *, models: int = MODELS
) -> list[Row]:
    """Make models and versions that have every value there is, and tell all of them."""
    dice = random.Random(SEED)  # noqa: S311  the same for each run
    tenant, somebody = principal.tenant_id, new_id()
    for number in range(models):
        model, owner = new_id(), dice.choice([principal.account_id, somebody])
        await superuser.execute(
            INSERT_MODEL, model, tenant, f"{dice.choice(WORDS)}-{number}", dice.choice(WORDS),
            dice.choice(FRAMEWORKS), dice.choice(TASKS), dice.choice(LICENCES),
            dice.choice(VISIBILITIES), owner, None,
        )  # fmt: skip
        for version in range(dice.randrange(VERSIONS_EACH + 1)):
            made = new_id()
            await superuser.execute(
                INSERT_VERSION, made, tenant, model, str(version), 2 ** dice.randrange(40), owner
            )
            await superuser.execute(
                "UPDATE model_versions SET status = $2 WHERE id = $1", made, dice.choice(STATUSES)
            )
            if dice.random() < 0.8:
                await superuser.execute(
                    INSERT_FACTS, made, tenant, dice.choice(ARCHITECTURES),
                    dice.choice(QUANTISATIONS), 10 ** dice.randrange(12), 2 ** dice.randrange(20),
                )  # fmt: skip
            if dice.random() < 0.3:
                name = f"a{version}" if dice.random() < 0.5 else "production"
                await superuser.execute(INSERT_ALIAS + " ON CONFLICT DO NOTHING", model, name,
                                        tenant, made)  # fmt: skip
        for tag in dice.sample(TAGS, dice.randrange(len(TAGS))):
            await superuser.execute(
                "INSERT INTO model_tags (model_id, tag, tenant_id) VALUES ($1, $2, $3)",
                model, tag, tenant,
            )  # fmt: skip
    await superuser.execute(
        "UPDATE models SET deleted_at = now() WHERE description = 'mini' AND task = 'chat'"
    )
    return [dict(row) for row in await superuser.fetch(ALL_ROWS, tenant)]


def questions(principal: Principal) -> list[RegistryFilter]:
    """Draw filters, alone and together, of values that are common, rare and nowhere."""
    dice = random.Random(SEED + 1)  # noqa: S311  likewise
    choices: dict[str, Callable[[], object]] = {
        "search": lambda: dice.choice(["llama", "lla", "1", "%", "百", "mini-1", "nowhere", "\\"]),
        "name": lambda: dice.choice([f"{word}-{dice.randrange(MODELS)}" for word in WORDS]),
        "tags": lambda: tuple(dice.sample([*TAGS, "none"], dice.randrange(1, 3))),
        "framework": lambda: dice.choice(FRAMEWORKS),
        "task": lambda: dice.choice([*TASKS[1:], "nothing"]),
        "licence": lambda: dice.choice(LICENCES[1:]),
        "visibility": lambda: dice.choice(VISIBILITIES),
        "owner_id": lambda: dice.choice([principal.account_id, AccountId(new_id())]),
        "status": lambda: dice.choice(STATUSES),
        "alias": lambda: dice.choice(["production", "a1", "none"]),
        "architecture": lambda: dice.choice(ARCHITECTURES[1:]),
        "quantisation": lambda: dice.choice(QUANTISATIONS[1:]),
        "dtype": lambda: "F16",
        "min_size": lambda: 2 ** dice.randrange(40),
        "max_size": lambda: 2 ** dice.randrange(40),
        "min_parameters": lambda: 10 ** dice.randrange(12),
        "max_parameters": lambda: 10 ** dice.randrange(12),
        "min_context_length": lambda: 2 ** dice.randrange(20),
    }
    return [
        RegistryFilter(),
        *(RegistryFilter(**{name: make()}) for name, make in choices.items()),  # type: ignore[arg-type]  # by its own maker
        *(
            RegistryFilter(
                **{name: choices[name]() for name in dice.sample(list(choices), size)}  # type: ignore[arg-type]  # likewise
            )
            for size in (dice.randrange(2, 4) for _ in range(QUESTIONS))
        ),
    ]


def fits(row: Row, wanted: RegistryFilter, *, texts: Sequence[str]) -> bool:
    """Judge one version and its model, without an index or a database."""
    return all(
        _fits(row, name, value, texts)
        for name, value in asdict(wanted).items()
        if value not in (None, (), False)
    )


def _fits(row: Row, name: str, value: Any, texts: Sequence[str]) -> bool:
    side, _, column = name.partition("_")
    match side, name:
        case _, "search":
            return any(value.lower() in (row[text] or "").lower() for text in texts)
        case _, "tags":
            return set(value) <= set(row["tags"])
        case _, "alias":
            return value in row["aliases"]
        case "min", _:
            return row[column] is not None and row[column] >= value
        case "max", _:
            return row[column] is not None and row[column] <= value
        case _:
            return bool(row[name] == value)


def is_seen(row: Row, principal: Principal) -> bool:
    return row["deleted_at"] is None and (
        row["visibility"] != "private"
        or row["owner_id"] == principal.account_id
        or principal.may("model:manage")
    )


async def read_all(find: Callable[[PageRequest], Any], *, limit: int = 19) -> list[Any]:
    """Read page after page, to the last."""
    items: list[Any] = []
    page = await find(PageRequest(limit=limit, include_total=True))
    total = page.total
    while True:
        items += page.items
        if page.next is None:
            assert len(items) == total
            return items
        page = await find(PageRequest(limit=limit, after=page.next))


def without_manage(principal: Principal) -> Principal:
    return Principal(
        kind="account",
        account_id=principal.account_id,
        tenant_id=principal.tenant_id,
        username="ada",
        permissions=frozenset({"model:read"}),
        version=1,
    )


OF_VERSIONS = (
    "status", "alias", "architecture", "quantisation", "dtype", "min_size", "max_size",
    "min_parameters", "max_parameters", "min_context_length",
)  # fmt: skip


def in_order(keys: list[tuple[Any, UUID]], order: Order) -> list[UUID]:
    return [each for _, each in sorted(keys, reverse=order == "newest")]
