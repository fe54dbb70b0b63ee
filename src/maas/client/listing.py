"""`maas model ls` and `maas model alias`: what the registry has, as rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from maas.client.api import Api
from maas.client.board import spell_size
from maas.client.registry import Registry, RemoteModel, RemoteVersion

_MODEL_TITLES = ("name", "framework", "task", "licence", "visibility", "updated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A table: `cells` for people, `raw` as the API has it."""

    titles: Sequence[str]
    cells: Sequence[Sequence[str]]
    raw: Sequence[dict[str, Any]]
    note: str = ""


async def list_models(api: Api, *, limit: int, keeps_all: bool = False, **filters: str) -> Rows:
    """List models; those of other tenants with the ids by which alone they can be named."""
    registry = Registry(api=api, keeps_all=keeps_all)
    found = await registry.list_models(limit=limit + 1, **filters)
    models, is_shared = found[:limit], "shared" in filters
    return Rows(
        titles=(*_MODEL_TITLES, "id", "tenant") if is_shared else _MODEL_TITLES,
        cells=[_model_cells(model) + (_whose(model) if is_shared else ()) for model in models],
        raw=[model.raw for model in models],
        note=f"the newest {limit}; --limit or a filter shows others" if len(found) > limit else "",
    )


async def list_versions(api: Api, name: str, *, limit: int, keeps_all: bool = False) -> Rows:
    registry = Registry(api=api, keeps_all=keeps_all)
    model = await registry.get_model(name)
    found = await registry.list_versions(model, limit=limit + 1)
    aliases = await registry.list_aliases(model)
    versions = found[:limit]
    return Rows(
        titles=("version", "status", "size", "files", "aliases", "in its files", "made"),
        cells=[
            _version_cells(version, [a.alias for a in aliases if a.version == version.version])
            for version in versions
        ],
        raw=[version.raw for version in versions],
        note=f"the newest {limit}; --limit shows others" if len(found) > limit else "",
    )


async def list_aliases(api: Api, name: str, alias: str | None, *, keeps_all: bool = False) -> Rows:
    registry = Registry(api=api, keeps_all=keeps_all)
    model = await registry.get_model(name)
    if alias is None:
        found = await registry.list_aliases(model)
    else:
        found = [await registry.get_alias(model, alias)]
    return Rows(
        titles=("alias", "version"),
        cells=[(each.alias, each.version) for each in found],
        raw=[each.raw for each in found],
    )


async def list_moves(
    api: Api, name: str, alias: str, *, keeps_all: bool = False, **at: str
) -> Rows:
    registry = Registry(api=api, keeps_all=keeps_all)
    found = await registry.list_moves(await registry.get_model(name), alias, **at)
    return Rows(
        titles=("from", "version", "reason"),
        cells=[(_spell(each.at), each.version or "(none)", each.reason or "") for each in found],
        raw=[each.raw for each in found],
    )


async def move_alias(
    api: Api, name: str, alias: str, version: str | None, *, reason: str | None
) -> str:
    """Point an alias at a version, or nowhere; return what is to be said of it."""
    registry = Registry(api=api)
    model = await registry.get_model(name)
    if version is None:
        await registry.delete_alias(model, alias)
        return f"{model.name} has no alias {alias} any more."
    await registry.set_alias(model, alias, version, reason=reason)
    return f"{model.name}@{alias} is {version} now."


def _model_cells(model: RemoteModel) -> tuple[str, ...]:
    return (
        model.name,
        model.framework,
        model.task or "",
        model.licence or "",
        model.visibility or "",
        _spell(model.updated_at),
    )


def _whose(model: RemoteModel) -> tuple[str, ...]:
    return str(model.id), "" if model.tenant_id is None else str(model.tenant_id)


def _version_cells(version: RemoteVersion, aliases: Sequence[str]) -> tuple[str, ...]:
    return (
        version.version,
        version.status,
        spell_size(version.size),
        str(version.file_count),
        ", ".join(aliases),
        _spell_facts(version.facts or {}),
        _spell(version.created_at),
    )


def _spell_facts(facts: dict[str, Any]) -> str:
    parameters = facts.get("parameters")
    size = f"{parameters / 1e6:,.0f}M" if isinstance(parameters, int) else ""
    named = [facts.get("architecture"), size, facts.get("quantisation") or facts.get("dtype")]
    return " ".join(str(each) for each in named if each)


def _spell(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"
