"""Transactions that begin with more than BEGIN, in one message.

A round trip costs both ends more CPU than a short statement does.
"""

from typing import Any

import asyncpg
from asyncpg.transaction import Transaction
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import ConnectionPoolEntry
from typing_extensions import override

_BEGIN = "BEGIN"


class BeginningConnection(asyncpg.Connection):
    """A connection that can be told how its next transaction begins."""

    next_begin: str = _BEGIN

    @override
    def transaction(self, **options: Any) -> Transaction:
        if any(options.values()):
            return super().transaction(**options)
        return _BegunTransaction(self)  # type: ignore[return-value]  # all that SQLAlchemy calls


class _BegunTransaction:
    """What SQLAlchemy wants of a transaction; asyncpg's own begins in one way alone."""

    __slots__ = ("_connection",)

    def __init__(self, connection: BeginningConnection) -> None:
        self._connection = connection

    async def start(self) -> None:
        begin, self._connection.next_begin = self._connection.next_begin, _BEGIN
        try:
            await self._connection.execute(begin)
        except asyncpg.PostgresError:
            # Cancelled after BEGIN: SQLAlchemy would give the connection back as it is.
            if self._connection.is_in_transaction():
                await self.rollback()
            raise

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")


def begin_with(connection: AsyncConnection, statements: str) -> bool:
    """Have the transaction begin so, or tell that it has begun; nothing of the caller's in it."""
    inner = connection.sync_connection
    driver = None if inner is None else inner.connection.driver_connection
    if not isinstance(driver, BeginningConnection) or driver.is_in_transaction():
        return False
    driver.next_begin = statements
    return True


def forget_next_begin(connection: DBAPIConnection | None, _entry: ConnectionPoolEntry) -> None:
    """Leave nothing to the next user of a connection that never began its transaction."""
    driver = getattr(connection, "driver_connection", None)
    if isinstance(driver, BeginningConnection):
        driver.next_begin = _BEGIN
