"""Restoring a backup into an empty platform, and saying what came of it."""

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from maas.audit.application.verification import Verdict, VerifyOptions
from maas.audit.domain.checkpoint import read_signed_checkpoint
from maas.audit.wiring import verify_trail
from maas.backup.database import (
    DatabaseRestore,
    LivingKey,
    ask_server,
    list_entries,
    make_roles,
)
from maas.backup.errors import BackupError, DamagedBackupError, HalfRestoredError, NotEmptyError
from maas.backup.manifest import (
    DATABASE,
    PARTS,
    KeptPart,
    Manifest,
    Progress,
    check_files,
    show_nothing,
)
from maas.backup.parts import is_empty, open_store, put_parts
from maas.backup.tools import find_tool
from maas.sealed import count_lost
from maas.shared.domain.errors import MaasError
from maas.shared.infrastructure.migrations import migrate
from maas.shared.infrastructure.revisions import known_revisions
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings

JOBS: Final = max(2, min(8, os.cpu_count() or 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    source: Path
    jobs: int = JOBS
    keeps_sessions: bool = False
    is_dry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What is there now; a dry run has nothing but the manifest."""

    manifest: Manifest
    revision: str
    sessions_ended: int = 0
    living_keys: list[LivingKey] = field(default_factory=list)
    lost_secrets: int = 0
    verdict: Verdict | None = None


async def check_backup(folder: Path, *, progress: Progress = show_nothing) -> Manifest:
    """Check that a backup is whole and what was written, with no server.

    Raises:
        DamagedBackupError: it is not.
        BackupError: no program here reads its dump.
    """
    manifest = Manifest.read(folder)
    if f"{DATABASE}/toc.dat" not in manifest.files:
        message = f"{folder} holds no dump of a database"
        raise DamagedBackupError(message)
    await check_files(folder, manifest, progress=progress)
    _kept_parts(manifest)
    tool = await find_tool("pg_restore", server_major=None, at_least=manifest.dumped_by_major)
    if not await list_entries(tool, folder / DATABASE):
        message = f"the dump in {folder} is empty"
        raise DamagedBackupError(message)
    return manifest


def _kept_parts(manifest: Manifest) -> list[KeptPart]:
    """List the parts that the backup has; a key leads nowhere else than into the store."""
    lost = set(manifest.damaged_parts)
    kept = [part for part in manifest.parts if part.key not in lost]
    for part in kept:
        name = f"{PARTS}/{part.key}"
        if manifest.files.get(name) != part.sha256 or ".." in part.key.split("/"):
            raise DamagedBackupError(f"the backup does not hold the part {part.key} as it was")
    return kept


async def restore_backup(
    settings: Settings,
    options: RestoreOptions,
    manifest: Manifest,
    *,
    progress: Progress = show_nothing,
) -> Restored:
    """Restore what was checked into an empty database and store, or change nothing at all.

    Raises:
        NotEmptyError: there is something already.
        BackupError: another reason not to begin.
        HalfRestoredError: it broke off; what is there does not serve, and must be emptied.
    """
    _refuse_newer(manifest)
    major = await ask_server(settings.database)
    if major < manifest.postgres_major:
        raise BackupError(
            f"the backup is of PostgreSQL {manifest.postgres}, and this server is {major}: "
            "restore into the same release, or a newer one"
        )
    tool = await find_tool("pg_restore", server_major=major, at_least=manifest.dumped_by_major)
    if manifest.has_parts and not await is_empty(open_store(settings)):
        raise NotEmptyError("the artifact store is not empty, and nothing is overwritten")
    if options.is_dry:
        return Restored(manifest=manifest, revision=manifest.revision)
    await make_roles(settings.database)
    with tempfile.TemporaryDirectory(prefix="maas-restore-") as lists:
        database = DatabaseRestore(
            settings.database,
            tool,
            options.source / DATABASE,
            Path(lists),
            jobs=options.jobs,
        )
        work = _Restoring(settings, options, manifest, database, progress)
        try:
            return await work.run()
        except (BackupError, MaasError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise _half(exc) from exc
        except OSError as exc:
            raise _half(exc) from exc
        except asyncio.CancelledError:
            raise _half("it was stopped") from None


def _refuse_newer(manifest: Manifest) -> None:
    known = known_revisions()
    if manifest.revision not in {known.head, *known.older}:
        raise BackupError(
            f"the backup is of a newer release, {manifest.product_version} (revision "
            f"{manifest.revision}): install that one or a later one here first"
        )


def _half(why: object) -> HalfRestoredError:
    return HalfRestoredError(
        f"the restore broke off: {why}\nWhat is there is no whole platform and does not serve. "
        "Drop the database and create it anew (embedded: delete the data folder), empty the "
        "artifact store, and restore again; the backup is untouched"
    )


class _Restoring:
    def __init__(
        self,
        settings: Settings,
        options: RestoreOptions,
        manifest: Manifest,
        database: DatabaseRestore,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._options = options
        self._manifest = manifest
        self._database = database
        self._progress = progress

    async def run(self) -> Restored:
        manifest, step = self._manifest, "Restoring the database"
        self._progress(step, 0, None)
        await self._database.load(lambda: self._progress(step, 0, None))
        if different := await self._database.compare(manifest):
            message = f"rows are missing or too many: {'; '.join(different[:10])}"
            raise BackupError(message)
        if manifest.has_parts:
            await put_parts(
                open_store(self._settings),
                _kept_parts(manifest),
                self._options.source / PARTS,
                progress=self._progress,
            )
        revision = known_revisions().head
        if manifest.revision != revision:
            self._progress("Migrating", 0, None)
            await self._database.mark(manifest.revision)
            # Alembic runs a loop of its own.
            await asyncio.to_thread(migrate)
            await self._database.mark(None)
        ended = await self._database.tell(manifest, keeps_sessions=self._options.keeps_sessions)
        verdict = await verify_trail(
            self._settings,
            _verification(manifest.audit_head),
            on_progress=lambda done, total: self._progress("Checking the trail", done, total),
        )
        keys = await self._database.living_keys()
        lost = await _count_lost(self._settings)
        # From here on it is a platform.
        await self._database.mark(revision)
        return Restored(
            manifest=manifest,
            revision=revision,
            sessions_ended=ended,
            living_keys=keys,
            lost_secrets=lost,
            verdict=verdict,
        )


def _verification(head: Any) -> VerifyOptions:
    if head is None:
        return VerifyOptions()
    return VerifyOptions(heads=[("the backup's head", read_signed_checkpoint(head))])


async def _count_lost(settings: Settings) -> int:
    try:
        return await count_lost(settings)
    except InvalidSettingsError as exc:
        raise BackupError("\n".join(exc.problems)) from None
