"""What nobody needs is freed, in steps of which each leaves things as good as before it.

Rows go first: a part that no row names is given to nobody. Then objects, then the note that they
are to go. Whoever is killed in between has left a note, and the next run does the rest.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from maas.model.application.ports import StoredFolder, StoredParts
from maas.shared.domain.clock import Clock

ORPHANED_AFTER: Final = timedelta(hours=24)
"""So old is the youngest object of an upload that nobody names, before it is taken for left over.

An upload at the least speed that is allowed has its next part there in less than nine hours.
"""

DELETED_AT_ONCE: Final = 500
FOLDERS_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a pass over the store has come; `after` is an upload's id, empty at its start."""

    after: str
    began_at: datetime


@dataclass(slots=True, kw_only=True)
class Collected:
    """What one run did."""

    keys: int = 0
    uploads: int = 0
    models: int = 0
    blobs: int = 0
    orphans: int = 0
    parts: int = 0
    is_held: bool = False


class CollectionLedger(Protocol):
    """The rows about what is to be freed; each method is one transaction, or several whole ones.

    What is marked is deleted from the store next, and no row names it any more.
    """

    async def drop_keys(self) -> int:
        """Drop suppliers' keys of some tenants that are closed for good; tell how many."""
        ...

    async def end_uploads(self, *, expired_before: datetime) -> int:
        """End some uploads that nobody went on with; their parts are marked, their room is free."""
        ...

    async def purge_models(self, *, deleted_before: datetime) -> int:
        """Let some files go of models that were deleted before; tell how many models it was.

        Such a model cannot be restored from then on.
        """
        ...

    async def mark_unused(self, *, freed_before: datetime, after: int) -> tuple[int, int | None]:
        """Mark the parts of blobs that files let go before, and that no file has; tell how many.

        Who refers to one at this moment is not waited for, and keeps it. Tells also where to go on,
        `None` at the end.
        """
        ...

    async def list_marked(self, *, limit: int) -> list[str]: ...

    async def forget_deleted(self, keys: Sequence[str]) -> None:
        """Note that these parts are in the store no more."""
        ...

    async def find_progress(self) -> Progress | None: ...

    async def is_held(self) -> bool:
        """Tell whether no file may go until an operator says so."""
        ...

    async def mark_orphans(self, folders: Sequence[StoredFolder], *, progress: Progress) -> int:
        """Mark parts in these folders that no row names, and note how far the pass has come."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionService:
    ledger: CollectionLedger
    parts: StoredParts
    clock: Clock
    unused_grace: timedelta
    keep_deleted: timedelta
    folders_at_once: int = FOLDERS_AT_ONCE

    async def run(self, *, seconds: float) -> Collected:
        """Do what is due, for about so long; the rest is due the next time.

        Raises:
            ArtifactStoreUnavailableError: the store does not answer; what was done stays done.
        """
        done, until = Collected(), time.monotonic() + seconds
        await self._drop_keys(done, until)
        # Restored beside a store that may be another platform's, or know more than these rows do.
        if await self.ledger.is_held():
            done.is_held = True
            return done
        await self._end_uploads(done, until)
        await self._purge(done, until)
        await self._mark_unused(done, until)
        await self._mark_orphans(done, until)
        await self._sweep(done, until)
        return done

    async def _drop_keys(self, done: Collected, until: float) -> None:
        while time.monotonic() < until:
            keys = await self.ledger.drop_keys()
            done.keys += keys
            if not keys:
                return

    async def _end_uploads(self, done: Collected, until: float) -> None:
        now = self.clock.now()
        while time.monotonic() < until:
            uploads = await self.ledger.end_uploads(expired_before=now)
            done.uploads += uploads
            if not uploads:
                return

    async def _purge(self, done: Collected, until: float) -> None:
        deleted_before = self.clock.now() - self.keep_deleted
        while time.monotonic() < until:
            models = await self.ledger.purge_models(deleted_before=deleted_before)
            done.models += models
            if not models:
                return

    async def _mark_unused(self, done: Collected, until: float) -> None:
        freed_before = self.clock.now() - self.unused_grace
        after: int | None = 0
        while after is not None and time.monotonic() < until:
            blobs, after = await self.ledger.mark_unused(freed_before=freed_before, after=after)
            done.blobs += blobs

    async def _mark_orphans(self, done: Collected, until: float) -> None:
        """Go on with the pass over the store; one begins a day after the one before began."""
        now = self.clock.now()
        progress = await self.ledger.find_progress()
        if progress is None or (not progress.after and progress.began_at < now - ORPHANED_AFTER):
            progress = Progress(after="", began_at=now)
        elif not progress.after:
            return
        oldest_possible = now - ORPHANED_AFTER
        while time.monotonic() < until:
            folders = await self.parts.list_folders(
                after=progress.after,
                before=_first_id_of(oldest_possible),
                limit=self.folders_at_once,
            )
            progress = Progress(
                after=folders[-1].name if folders else "", began_at=progress.began_at
            )
            old = [folder for folder in folders if folder.changed_at < oldest_possible]
            done.orphans += await self.ledger.mark_orphans(old, progress=progress)
            if not folders:
                return

    async def _sweep(self, done: Collected, until: float) -> None:
        while time.monotonic() < until:
            keys = await self.ledger.list_marked(limit=DELETED_AT_ONCE)
            if not keys:
                return
            await self.parts.delete(keys)
            await self.ledger.forget_deleted(keys)
            done.parts += len(keys)


def _first_id_of(moment: datetime) -> str:
    """Tell what the ids of uploads begin with that were begun then: they are UUIDv7."""
    text = f"{round(moment.timestamp() * 1000):012x}"
    return f"{text[:8]}-{text[8:]}"
