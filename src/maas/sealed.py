"""All that is sealed, over all contexts: its keys, and what is done about those it has."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias
from uuid import UUID

import asyncpg

from maas.audit.infrastructure.outbox import EventWriter
from maas.audit.infrastructure.webhooks_sender import SEALED as SEALED_OF_AUDIT
from maas.audit.public import Actor, AuditedResource, AuditScope
from maas.audit.wiring import build_event_writer
from maas.inference.infrastructure.captures import SEALED as SEALED_OF_INFERENCE
from maas.model.infrastructure.provider_credentials import SEALED as SEALED_OF_MODEL
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_key_file import (
    ONLY_OLDER,
    KeyChangeRefusedError,
    changing_key_file,
    read_key_file,
)
from maas.shared.infrastructure.sealing_keys import (
    KeyManagement,
    build_sealer,
    key_file_path,
    load_kms,
    open_key_source,
    read_ring,
)
from maas.shared.infrastructure.sealing_ring import KEY_BYTES, FixedKeys, KeyRing, RingKey
from maas.shared.infrastructure.sealing_upkeep import (
    Connection,
    KeyUse,
    SealedColumn,
    SealingFault,
    SealingUpkeep,
    open_sealing_upkeep,
)
from maas.shared.infrastructure.settings import Settings

SEALED_COLUMNS: Final[Sequence[SealedColumn]] = (
    *SEALED_OF_AUDIT,
    SEALED_OF_MODEL,
    SEALED_OF_INFERENCE,
)

UNREADABLE_ACTION = "secret.unreadable"
ADDED_ACTION = "sealing_key.added"
ROTATED_ACTION = "sealing_key.rotated"
RETIRED_ACTION = "sealing_key.retired"
SECRET: Final = AuditedResource("secret", frozenset({"kept_in"}))
SEALING_KEY: Final = AuditedResource("sealing_key", frozenset({"lost_secrets"}))


KeyState: TypeAlias = Literal["added", "current", "older", "retired", "refused", "unknown"]
"""What is refused would seal here, and is retired."""

IN_FILE: Final = "file"
DERIVED_FROM: Final = "MAAS_SECRET_KEY"


class FaultEvents:
    """Tells a tenant's trail of secrets of its own that do not open any more."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events

    async def __call__(self, connection: Connection, faults: Sequence[SealingFault]) -> None:
        await self._events.write(connection, [_scope_of(fault) for fault in faults])


def _scope_of(fault: SealingFault) -> AuditScope:
    scope = AuditScope(UNREADABLE_ACTION, outcome="failure", tenant_id=fault.tenant_id)
    scope.actor = Actor("system", None, name="sealing")
    scope.change(SECRET, fault.row_id, after={"kept_in": fault.column.name})
    return scope


@asynccontextmanager
async def open_upkeep(settings: Settings) -> AsyncIterator[SealingUpkeep]:
    async with open_sealing_upkeep(
        settings.database, build_sealer(settings), SEALED_COLUMNS, clock=SystemClock()
    ) as upkeep:
        yield upkeep


async def rewrap_sealed(settings: Settings) -> bool:
    """Hand over to the current key what is sealed under older ones; tell if more is left."""
    async with open_upkeep(settings) as upkeep:
        return await upkeep.rewrap()


async def check_sealed(
    settings: Settings, column: str | None, after: str | None
) -> tuple[str, str] | None:
    """Tell the trail what does not open; where it stopped, if that was before the end."""
    tell = FaultEvents(build_event_writer(SystemClock()))
    async with open_upkeep(settings) as upkeep:
        start = None if after is None else UUID(after)
        stopped = await upkeep.check(tell, column=column, after=start)
    return None if stopped is None else (stopped[0], str(stopped[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLine:
    """One key as it is shown: never the key itself."""

    id: str
    state: KeyState
    kept_in: str | None
    made_at: str | None
    values: int


async def add_key(settings: Settings) -> str:
    """Make a key that opens, and does not seal yet; tell its id.

    Raises:
        KeyChangeRefusedError: the keys are in no file, or the KMS does not wrap the new one.
        InvalidSettingsError: there is no such KMS.
        UnfitRingError, OSError: the file cannot be read, or written.
        asyncpg.PostgresError: it cannot be recorded.
    """
    path, kms = _file_of(settings), load_kms(settings.sealing.kms)
    key = RingKey.of(os.urandom(KEY_BYTES))
    secret = key.secret if kms is None else _wrap(kms, key.secret)
    async with _recording(settings) as connection:
        await _tell(connection, ADDED_ACTION, key.id.hex())
        with changing_key_file(path) as content:
            content[0] = content[0].adding(
                key.id.hex(), secret, is_wrapped=kms is not None, at=SystemClock().now()
            )
    return key.id.hex()


def _wrap(kms: KeyManagement, secret: bytes) -> bytes:
    try:
        return kms.wrap(secret)
    except Exception as exc:  # noqa: BLE001  a KMS raises what it likes; its words could show the key
        message = f"the KMS did not wrap a new key ({type(exc).__name__}): nothing was changed"
        raise KeyChangeRefusedError(message) from None


async def rotate_key(settings: Settings) -> str:
    """Let the newest key seal; tell its id.

    Raises:
        KeyChangeRefusedError: there is no newer one, or the keys are in no file.
        UnfitRingError, OSError: the file cannot be read, or written.
        asyncpg.PostgresError: it cannot be recorded.
    """
    async with _recording(settings) as connection:
        with changing_key_file(_file_of(settings)) as content:
            content[0] = content[0].rotated()
            current = content[0].keys[0].id
            await _tell(connection, ROTATED_ACTION, current)
    return current


async def retire_key(settings: Settings, key_id: str, *, may_lose: bool) -> str:
    """Let nothing be sealed under an older key any more, and take it out; tell where it was.

    Raises:
        KeyChangeRefusedError: it is not older than the current one, or is still needed.
        InvalidSettingsError: the keys that are set cannot be used.
        UnfitRingError, OSError: the file cannot be read, or written.
        asyncpg.PostgresError: it cannot be counted or recorded.
    """
    ring = open_key_source(settings).read_again()
    if key_id not in {key.id.hex() for key in ring.older}:
        raise KeyChangeRefusedError(ONLY_OLDER)
    async with open_upkeep(settings) as upkeep, upkeep.connection.transaction():
        left = await upkeep.retire(bytes.fromhex(key_id))
        if any(left) or (left and not may_lose):
            raise KeyChangeRefusedError(_why_not(left))
        await _tell(upkeep.connection, RETIRED_ACTION, key_id, lost_secrets=len(left))
    where = _where(settings, key_id)
    if where == IN_FILE:
        # Only once the database refuses the key: what was under way until then has been counted.
        with changing_key_file(_file_of(settings)) as content:
            content[0] = content[0].without(key_id)
    return where


async def list_keys(settings: Settings) -> list[KeyLine]:
    """List the keys, the newest first, and those that are lost and still needed."""
    ring = open_key_source(settings).read_again()
    async with open_upkeep(settings) as upkeep:
        uses = await upkeep.uses()
    unused, made_at = KeyUse(counts={}, is_retired=False), _made_at(settings)
    lines = [
        KeyLine(
            id=key.id.hex(),
            state=_state(ring, key, uses.get(key.id, unused)),
            kept_in=_where(settings, key.id.hex()),
            made_at=made_at.get(key.id.hex()),
            values=uses.get(key.id, unused).total,
        )
        for key in ring.keys
    ]
    strangers = [
        KeyLine(id=key_id.hex(), state="unknown", kept_in=None, made_at=None, values=use.total)
        for key_id, use in uses.items()
        if use.total and ring.find(key_id) is None
    ]
    return lines + strangers


async def count_lost(settings: Settings) -> int:
    """Count the values that no key here opens.

    Raises:
        InvalidSettingsError: the keys that are set cannot be used.
        asyncpg.PostgresError, OSError: the database cannot be asked.
    """
    ring = read_ring(settings)
    sealer = Sealer(FixedKeys(ring.keys))
    async with open_sealing_upkeep(
        settings.database, sealer, SEALED_COLUMNS, clock=SystemClock()
    ) as upkeep:
        uses = await upkeep.uses()
    return sum(use.total for key_id, use in uses.items() if ring.find(key_id) is None)


def _state(ring: KeyRing, key: RingKey, use: KeyUse) -> KeyState:
    if use.is_retired:
        return "refused" if key == ring.current else "retired"
    if key == ring.current:
        return "current"
    return "older" if key in ring.older else "added"


def _where(settings: Settings, key_id: str) -> str:
    secrets = {
        DERIVED_FROM: settings.secret_key,
        "MAAS_AUTH__PREVIOUS_SECRET_KEY": settings.auth.previous_secret_key,
    }
    for variable, secret in secrets.items():
        if secret and RingKey.derived(secret.get_secret_value()).id.hex() == key_id:
            return variable
    return IN_FILE if settings.sealing.keys is None else "MAAS_SEALING__KEYS"


def _made_at(settings: Settings) -> Mapping[str, str]:
    if settings.sealing.keys is None:
        with suppress(FileNotFoundError):
            return {key.id: key.made_at for key in read_key_file(_file_of(settings)).keys}
    return {}


def _file_of(settings: Settings) -> Path:
    if settings.sealing.keys is not None:
        message = (
            "the keys are in MAAS_SEALING__KEYS: put a new one second there and restart every "
            "process, then first, and restart them again"
        )
        raise KeyChangeRefusedError(message)
    return key_file_path(settings)


def _why_not(left: Sequence[bool]) -> str:
    if any(left):
        return (
            f"{len(left)} values are sealed under it still: a running worker hands them over "
            "within a minute of `maas keys rotate`"
        )
    return (
        f"{len(left)} values are sealed under it that it does not open: the trail names them "
        "(secret.unreadable). Set them anew, or give them up with --lose-unreadable"
    )


@asynccontextmanager
async def _recording(settings: Settings) -> AsyncIterator[Connection]:
    """Lend a transaction for the event of what the block does; a change is the last of it."""
    connection = await asyncpg.connect(**system_arguments(settings.database))
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def _tell(connection: Connection, action: str, key_id: str, *, lost_secrets: int = 0) -> None:
    scope = AuditScope(action, tenant_id=DEFAULT_TENANT_ID)
    scope.actor = Actor("system", None, name="operator")
    scope.change(SEALING_KEY, key_id, after={"lost_secrets": lost_secrets} if lost_secrets else {})
    await build_event_writer(SystemClock()).write(connection, [scope])
