"""Taking a backup: all of it from one snapshot, under a name of its own only once it is whole."""

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import asyncpg

from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.audit.infrastructure.heads import spell_head
from maas.audit.public import Actor, AuditScope
from maas.audit.wiring import build_event_writer
from maas.backup.errors import BackupError
from maas.backup.manifest import (
    BACKUP,
    DATABASE,
    HEADS,
    NAME,
    PARTS,
    SECRETS,
    KeptPart,
    Manifest,
    Progress,
    digest_all,
    show_nothing,
    sync,
    write_private,
)
from maas.backup.parts import fetch_parts, is_local, open_store
from maas.backup.secrets import copy_secrets
from maas.backup.snapshot import LOCK_SECONDS, Snapshot, count_rows, open_snapshot
from maas.backup.tools import (
    Tool,
    connection_environment,
    discard,
    find_tool,
    folder_bytes,
    role_arguments,
    run_tool,
)
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import Settings

TAKEN_ACTION = "system.backed_up"
PARTIAL: Final = ".partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    target: Path
    jobs: int = 1
    has_parts: bool | None = None
    """Whether files of models are copied; none: those of a folder of this machine are."""
    has_secrets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of it; `is_told` says whether the trail has the event."""

    manifest: Manifest
    bytes: int
    is_told: bool


async def take_backup(
    settings: Settings, options: BackupOptions, *, progress: Progress = show_nothing
) -> Taken:
    """Write a backup; whatever breaks it off leaves nothing behind that passes for one.

    Raises:
        BackupError: it could not be taken; what was written is gone again.
    """
    target = options.target.absolute()
    draft = target.with_name(f"{target.name}{PARTIAL}")
    _refuse_taken(target, draft)
    try:
        draft.mkdir(mode=0o700)
    except OSError as exc:
        raise BackupError(f"{draft} cannot be made: {exc.strerror}") from None
    try:
        manifest = await _Taking(settings, options, draft, progress).run()
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
        # Looked at again: a folder would be replaced by the renaming if it were empty.
        _refuse_taken(target, None)
        draft.rename(target)
        sync(target.parent)
    except OSError as exc:
        raise BackupError(f"{draft} cannot be written: {exc.strerror or exc}") from None
    finally:
        discard(draft)
    return Taken(manifest=manifest, bytes=size, is_told=await _tell(settings, manifest))


def _refuse_taken(target: Path, draft: Path | None) -> None:
    if os.path.lexists(target):
        raise BackupError(f"{target} is there already, and nothing is overwritten")
    if draft is not None and os.path.lexists(draft):
        message = f"{draft} is there: another backup is writing it, or one was killed; delete it"
        raise BackupError(message)
    if not target.parent.is_dir():
        raise BackupError(f"{target.parent} is no folder: is its disk mounted?")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    dumped_by: Tool
    rows: dict[str, int]
    head: SignedCheckpoint | None
    parts: list[KeptPart]
    damaged: list[str]
    started_at: datetime


class _Taking:
    def __init__(
        self, settings: Settings, options: BackupOptions, folder: Path, progress: Progress
    ) -> None:
        self._settings = settings
        self._options = options
        self._folder = folder
        self._progress = progress
        wanted = options.has_parts
        self._has_parts = is_local(settings) if wanted is None else wanted

    async def run(self) -> Manifest:
        started_at = SystemClock().now()
        if self._options.has_secrets:
            # First: what cannot be read is found out before hours have gone by.
            copy_secrets(self._settings, self._folder / SECRETS)
        arguments = system_arguments(self._settings.database)
        async with open_snapshot(self._settings.database) as snapshot:
            tool = await find_tool(
                "pg_dump",
                server_major=snapshot.postgres_major,
                environment=connection_environment(arguments),
            )
            head, parts = await snapshot.newest_head(), await snapshot.parts()
            # Counted over a connection of its own, while the program reads the same rows.
            dump = asyncio.create_task(self._dump(snapshot, tool))
            try:
                rows = await count_rows(snapshot.connection)
                await snapshot.attend(dump)
            finally:
                await _end(dump)
            await snapshot.let_go()
            if self._has_parts:
                parts, damaged = await self._copy_parts(snapshot, parts)
            else:
                parts, damaged = [], []
        if head is not None:
            write_private(self._folder / HEADS, spell_head(head).decode())
        content = _Content(
            dumped_by=tool,
            rows=rows,
            head=head,
            parts=parts,
            damaged=damaged,
            started_at=started_at,
        )
        return await self._finish(snapshot, content)

    async def _dump(self, snapshot: Snapshot, tool: Tool) -> None:
        arguments = system_arguments(self._settings.database)
        folder, step = self._folder / DATABASE, "Dumping the database"
        await run_tool(
            [
                tool.path,
                *role_arguments(arguments),
                *("--format=directory", f"--file={folder}", f"--jobs={self._options.jobs}"),
                *(f"--snapshot={snapshot.id}", f"--lock-wait-timeout={LOCK_SECONDS}s"),
                # What an administrator put beside ours could not be restored by our owner.
                *("--schema=public", "--extension=pg_trgm", "--compress=gzip:1", "--no-password"),
            ],
            environment=connection_environment(arguments),
            pulse=lambda: self._progress(step, folder_bytes(folder), None),
        )
        self._progress(step, folder_bytes(folder), folder_bytes(folder))

    async def _copy_parts(
        self, snapshot: Snapshot, parts: list[KeptPart]
    ) -> tuple[list[KeptPart], list[str]]:
        """Copy the parts, and tell which there are and which of those are damaged.

        Who ends an upload takes its parts along at once. No row names those any more, and they are
        not lost.
        """
        folder = self._folder / PARTS
        folder.mkdir(mode=0o700)
        store = open_store(self._settings)
        copy = asyncio.create_task(fetch_parts(store, parts, folder, progress=self._progress))
        try:
            missed = await snapshot.attend(copy)
        finally:
            await _end(copy)
        damaged = await snapshot.still_named(missed)
        gone = set(missed) - damaged
        return [part for part in parts if part.key not in gone], sorted(damaged)

    async def _finish(self, snapshot: Snapshot, content: _Content) -> Manifest:
        self._progress("Hashing what was written", 0, None)
        files = await asyncio.to_thread(digest_all, self._folder)
        manifest = Manifest(
            backup_id=str(new_id()),
            product_version=version("maas-platform"),
            revision=snapshot.revision,
            postgres=snapshot.postgres,
            postgres_major=snapshot.postgres_major,
            dumped_by_major=content.dumped_by.major,
            started_at=content.started_at.isoformat(),
            snapshot_at=snapshot.taken_at,
            finished_at=SystemClock().now().isoformat(),
            has_parts=self._has_parts,
            has_secrets=self._options.has_secrets,
            rows=content.rows,
            audit_head=None if content.head is None else content.head.to_mapping(),
            parts=content.parts,
            damaged_parts=content.damaged,
            files=files,
        )
        write_private(self._folder / NAME, manifest.spell())
        sync(self._folder)
        return manifest


async def _end(work: "asyncio.Task[Any]") -> None:
    """End work that may still go on; whoever waited for it has its error already."""
    work.cancel()
    with suppress(asyncio.CancelledError, BackupError, OSError):
        await work


async def _tell(settings: Settings, manifest: Manifest) -> bool:
    """Tell the trail that everything was copied; a server that only reads cannot be told."""
    scope = AuditScope(TAKEN_ACTION, tenant_id=DEFAULT_TENANT_ID)
    scope.actor = Actor("system", None, name="operator")
    scope.change(
        BACKUP,
        manifest.backup_id,
        after={
            "rows": manifest.row_count,
            "has_secrets": manifest.has_secrets,
            "has_files": manifest.has_parts,
        },
    )
    try:
        await write_event(system_arguments(settings.database), scope)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


async def write_event(arguments: dict[str, Any], scope: AuditScope) -> None:
    connection = await asyncpg.connect(**arguments)
    try:
        await build_event_writer(SystemClock()).write(connection, [scope])
    finally:
        await connection.close()
