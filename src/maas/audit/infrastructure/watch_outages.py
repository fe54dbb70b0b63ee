"""Tells outages of PostgreSQL, which pass, from errors of ours, which stay as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from maas.audit.application.flush import LogUnavailableError
from maas.audit.infrastructure.ledger import OUTAGES


@contextmanager
def naming_outages() -> Iterator[None]:
    """Let an outage out as such.

    Raises:
        LogUnavailableError: PostgreSQL does not answer, or not now.
    """
    try:
        yield
    except asyncpg.PostgresError as exc:
        if (exc.sqlstate or "").startswith(OUTAGES):
            raise LogUnavailableError(type(exc).__name__) from exc
        raise
    except (asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise LogUnavailableError(type(exc).__name__) from exc
