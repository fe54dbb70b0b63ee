"""Restoring a backup into an empty platform, and saying what came of it."""

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from maas.audit.application.verification import Verdict, VerifyOptions
from maas.audit.domain.checkpoint import read_signed_checkpoint
from maas.audit.infrastructure.signing import is_signed_by
from maas.audit.wiring import load_configured_signer, verify_trail
from maas.backup.database import (
    DatabaseRestore,
    Ended,
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
from maas.backup.secrets import find_missing
from maas.backup.tools import connection_environment, find_tool
from maas.embedded.alone import has_database
from maas.model.infrastructure.artifacts import FOLDER as ARTIFACTS
from maas.sealed import count_lost
from maas.shared.infrastructure.database import owner_arguments
from maas.shared.infrastructure.revisions import known_revisions
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings

JOBS: Final = max(2, min(8, os.cpu_count() or 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    source: Path
    jobs: int = JOBS
    keeps_sessions: bool = False
    owns_files: bool = False
    """Whether the files' store, where they are not in the backup, is this platform's alone."""
    is_dry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What is there now; a dry run has nothing but the manifest."""

    manifest: Manifest
    revision: str
    ended: Ended = field(default_factory=Ended)
    holds_files: bool = False
    is_open: bool = False
    head_key: str | None = None
    """The key of this platform's settings by which the backup's head is signed."""
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
    tool = await find_tool(
        "pg_restore",
        server_major=major,
        at_least=manifest.dumped_by_major,
        environment=connection_environment(owner_arguments(settings.database)),
    )
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
        # Whatever it was, and whoever raised it: what is there is no platform.
        except Exception as exc:
            raise _half(str(exc) or type(exc).__name__) from exc
        except asyncio.CancelledError:
            raise _half("it was stopped") from None


async def check_folder(folder: Path, manifest: Manifest) -> list[str]:
    """Check that a data folder is free to be restored into, and start or write nothing for it.

    Names the keys that neither are in it nor come with the backup.

    Raises:
        NotEmptyError: there is something already.
        BackupError: another reason not to begin.
    """
    _refuse_newer(manifest)
    await find_tool("pg_restore", server_major=None, at_least=manifest.dumped_by_major)
    if has_database(folder):
        raise NotEmptyError(f"{folder} has a database already, and nothing is overwritten")
    files = folder / ARTIFACTS
    if manifest.has_parts and files.is_dir() and any(files.iterdir()):
        raise NotEmptyError(f"{files} is not empty, and nothing is overwritten")
    return find_missing(manifest, folder)


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
            await self._database.migrate(manifest.revision)
        holds_files = not (manifest.has_parts or self._options.owns_files)
        ended = await self._database.tell(
            manifest, keeps_sessions=self._options.keeps_sessions, holds_files=holds_files
        )
        verdict = await verify_trail(
            self._settings,
            _verification(manifest.audit_head),
            on_progress=lambda done, total: self._progress("Checking the trail", done, total),
        )
        keys = await self._database.living_keys()
        lost = await _count_lost(self._settings)
        is_open = await self._database.is_open()
        # From here on it is a platform.
        await self._database.finish(revision)
        return Restored(
            manifest=manifest,
            revision=revision,
            ended=ended,
            holds_files=holds_files,
            is_open=is_open,
            head_key=_known_key(self._settings, manifest),
            living_keys=keys,
            lost_secrets=lost,
            verdict=verdict,
        )


def _verification(head: Any) -> VerifyOptions:
    if head is None:
        return VerifyOptions()
    return VerifyOptions(heads=[("the backup's head", read_signed_checkpoint(head))])


def _known_key(settings: Settings, manifest: Manifest) -> str | None:
    """Name the key of the settings that signed the head, unless the key came with the backup.

    Whoever can write a backup can write rows, keys and head that agree, but not sign for ours.
    """
    if manifest.audit_head is None or manifest.has_secrets:
        return None
    head, signer = read_signed_checkpoint(manifest.audit_head), load_configured_signer(settings)
    message = head.checkpoint.to_bytes()
    return signer.key_id if is_signed_by(signer.public_key, head.signature, message) else None


async def _count_lost(settings: Settings) -> int:
    try:
        return await count_lost(settings)
    except InvalidSettingsError as exc:
        raise BackupError("\n".join(exc.problems)) from None
