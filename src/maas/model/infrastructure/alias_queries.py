"""Reads of aliases and their moves: raw asyncpg, each in a read-only transaction of its tenant."""

from datetime import datetime
from typing import Final

from maas.model.application.aliases import AliasDetails, AliasMoveDetails
from maas.model.domain.alias import AliasName, AliasNotFoundError, AliasNotThenError
from maas.model.domain.model import ModelNotFoundError
from maas.model.infrastructure.queries import HAS_MODEL, number_after, numbered
from maas.model.infrastructure.visibility import reader
from maas.model.public import ModelId
from maas.shared.domain.page import Page, PageRequest, TextPageRequest, TextPosition, cut_page
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database, PooledConnection

_ALIAS: Final = """
    a.model_id, a.name AS alias, a.version_id, a.version, a.reason, a.sequence, a.moved_by,
    a.moved_at
"""
_MOVE: Final = """
    a.sequence, a.version_id, a.version, a.previous_version, a.reason, a.moved_by, a.at
"""
_OF_ALIAS: Final = "a.model_id = $1 AND a.alias = $2"

GET_ALIAS: Final = f"""
    SELECT {_ALIAS} FROM model_aliases a
    WHERE a.model_id = $1 AND a.name = $2 AND a.version_id IS NOT NULL
"""  # noqa: S608  no input in it
LIST_ALIASES: Final = f"""
    SELECT {_ALIAS} FROM model_aliases a
    WHERE a.model_id = $1 AND a.version_id IS NOT NULL AND ($2::text IS NULL OR a.name > $2)
    ORDER BY a.name LIMIT $3
"""  # noqa: S608  likewise
COUNT_ALIASES: Final = """
    SELECT count(*) FROM model_aliases WHERE model_id = $1 AND version_id IS NOT NULL
"""
LIST_MOVES: Final = f"""
    SELECT {_MOVE} FROM model_alias_moves a
    WHERE {_OF_ALIAS} AND ($3::integer IS NULL OR a.sequence < $3)
    ORDER BY a.sequence DESC LIMIT $4
"""  # noqa: S608  likewise
# No move is missing in a sequence.
COUNT_MOVES: Final = (
    f"SELECT coalesce(max(a.sequence), 0) FROM model_alias_moves a WHERE {_OF_ALIAS}"  # noqa: S608  likewise
)
GET_MOVE_AT: Final = f"""
    SELECT {_MOVE} FROM model_alias_moves a WHERE {_OF_ALIAS} AND a.at <= $3
    ORDER BY a.at DESC LIMIT 1
"""  # noqa: S608  likewise
HAS_MOVED: Final = f"SELECT 1 FROM model_alias_moves a WHERE {_OF_ALIAS} LIMIT 1"  # noqa: S608  likewise


class PostgresAliasQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_alias(
        self, caller: Principal, model_id: ModelId, name: AliasName
    ) -> AliasDetails:
        async with self._database.tenant(caller.tenant_id) as connection:
            await _check_readable(connection, caller, model_id)
            row = await connection.fetchrow(GET_ALIAS, model_id, name.value)
        if row is None:
            raise AliasNotFoundError
        return AliasDetails(**row)

    async def list_aliases(
        self, caller: Principal, model_id: ModelId, page: TextPageRequest
    ) -> Page[AliasDetails, TextPosition]:
        after = None if page.after is None else page.after.text
        async with self._database.tenant(caller.tenant_id) as connection:
            await _check_readable(connection, caller, model_id)
            rows = await connection.fetch(LIST_ALIASES, model_id, after, page.limit + 1)
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_ALIASES, model_id)
        aliases = [AliasDetails(**row) for row in rows]
        return cut_page(aliases, page.limit, total, lambda last: TextPosition(last.alias))

    async def list_moves(
        self, caller: Principal, model_id: ModelId, name: AliasName, page: PageRequest
    ) -> Page[AliasMoveDetails]:
        after = number_after(page)
        async with self._database.tenant(caller.tenant_id) as connection:
            await _check_readable(connection, caller, model_id)
            rows = await connection.fetch(LIST_MOVES, model_id, name.value, after, page.limit + 1)
            if not rows:
                await _check_moved(connection, model_id, name)
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_MOVES, model_id, name.value)
        moves = [AliasMoveDetails(**row) for row in rows]
        return cut_page(moves, page.limit, total, lambda last: numbered(last.at, last.sequence))

    async def get_move_at(
        self, caller: Principal, model_id: ModelId, name: AliasName, at: datetime
    ) -> AliasMoveDetails:
        async with self._database.tenant(caller.tenant_id) as connection:
            await _check_readable(connection, caller, model_id)
            row = await connection.fetchrow(GET_MOVE_AT, model_id, name.value, at)
            if row is None:
                await _check_moved(connection, model_id, name)
                raise AliasNotThenError
        return AliasMoveDetails(**row)


async def _check_readable(
    connection: PooledConnection, caller: Principal, model_id: ModelId
) -> None:
    if await connection.fetchval(HAS_MODEL, model_id, *reader(caller)) is None:
        raise ModelNotFoundError


async def _check_moved(connection: PooledConnection, model_id: ModelId, name: AliasName) -> None:
    if await connection.fetchval(HAS_MOVED, model_id, name.value) is None:
        raise AliasNotFoundError
