"""`maas model pull`: the files of a version into a folder, byte for byte."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maas.client.api import Api
from maas.client.board import Board, name_some, spell_size
from maas.client.downloads import STRETCH_BYTES, Download
from maas.client.errors import ClientError
from maas.client.folder import digest_stream, in_thread
from maas.client.groups import run_all
from maas.client.landing import Landing, read_paths
from maas.client.registry import Registry, RemoteFile, RemoteModel, RemoteVersion, file_path
from maas.model.domain.file import FilePath

PULLABLE = frozenset({"ready", "deprecated", "archived"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    reference: str
    folder: Path
    version: str | None
    is_forced: bool
    with_hidden: bool
    parallel: int
    stretch_bytes: int = STRETCH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull did: `fetched` of `files` were not there yet; hidden ones left out are none."""

    model: str
    version: RemoteVersion
    files: int
    fetched: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    path: FilePath
    file: RemoteFile


async def pull(api: Api, options: PullOptions, board: Board) -> Pulled:
    """Fetch what is missing of a version, and leave the rest of the folder alone.

    Raises:
        LineBrokenError: it broke too often; what arrived stays.
        ClientError: something else is in the way; the message says what.
    """
    registry = Registry(api=api)
    model, version = await registry.resolve(options.reference, version=options.version)
    if version.status not in PULLABLE:
        message = (
            f"{model.name} {version.version} is {version.status}: its files may still change. Pull "
            "it once it is ready."
        )
        raise ClientError(message)
    files = await registry.list_files(model, version.version)
    wanted = [
        _Wanted(path=path, file=file)
        for path, file in zip(read_paths(file.path for file in files), files, strict=True)
    ]
    if not options.with_hidden:
        wanted = _leave_out_hidden(wanted, f"{model.name} {version.version}", board)
    with Landing(options.folder) as landing:
        work = _Pull(
            api=api,
            model=model,
            version=version.version,
            landing=landing,
            board=board,
            options=options,
        )
        fetched = await work.run(wanted)
    return Pulled(
        model=model.name,
        version=version,
        files=len(wanted),
        fetched=fetched,
        size=sum(each.file.size for each in wanted),
    )


def _leave_out_hidden(wanted: list[_Wanted], of: str, board: Board) -> list[_Wanted]:
    """Leave out what nobody would see come, and what other programs may run or believe.

    Raises:
        ClientError: nothing else is left.
    """
    kept, hidden = list[_Wanted](), list[str]()
    for each in wanted:
        if any(name.startswith(".") for name in each.path.value.split("/")):
            hidden.append(each.path.value)
        else:
            kept.append(each)
    if hidden and not kept:
        raise ClientError(f"{of} has no files but hidden ones; --hidden takes them too.")
    if hidden:
        board.line(f"{'left out':<9} {name_some(hidden)}  (hidden; --hidden takes them)")
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pull:
    api: Api
    model: RemoteModel
    version: str
    landing: Landing
    board: Board
    options: PullOptions

    async def run(self, wanted: Sequence[_Wanted]) -> int:
        """Fetch what is missing; tell how many files that were."""
        self._check_names(wanted)
        missing = await self._find_missing(wanted)
        by_digest: dict[str, list[_Wanted]] = {}
        for each in missing:
            by_digest.setdefault(each.file.sha256, []).append(each)
        self._check_room(missing)
        self.board.expect(sum(group[0].file.size for group in by_digest.values()))
        slots = asyncio.Semaphore(self.options.parallel)
        groups = sorted(by_digest.values(), key=lambda group: group[0].file.size)
        await run_all(
            [partial(self._fetch, group, slots) for group in groups], at_once=self.options.parallel
        )
        return len(missing)

    async def _fetch(self, same: Sequence[_Wanted], slots: asyncio.Semaphore) -> None:
        """Fetch bytes once, and put them under every path that has them."""
        first, others = same[0], same[1:]
        bar = self.board.bar(str(first.path), first.file.size)
        download = Download(
            api=self.api,
            landing=self.landing,
            location=file_path(self.model, self.version, str(first.path)),
            file=first.file,
            bar=bar,
            slots=slots,
            most_stretches=self.options.parallel,
            stretch_bytes=self.options.stretch_bytes,
        )
        try:
            await download.run()
        except BaseException:
            # Whatever ended it, a Ctrl-C too, a bar that stays would hide what is said next.
            bar.close()
            raise
        self.landing.place(download.part, first.path)
        bar.close("pulled", spell_size(first.file.size))
        for each in others:
            self.landing.copy(first.path, each.path)
            self.board.line(f"{'copied':<9} {each.path}  {spell_size(each.file.size)}")

    def _check_names(self, wanted: Sequence[_Wanted]) -> None:
        """Refuse what this disk would take for one file."""
        folded: dict[str, FilePath] = {}
        for each in wanted:
            other = folded.setdefault(each.path.value.casefold(), each.path)
            if other is not each.path and self.landing.folds_case():
                message = f"{other} and {each.path} are one file on this disk, and two there."
                raise ClientError(message)

    async def _find_missing(self, wanted: Sequence[_Wanted]) -> list[_Wanted]:
        """Compare what is in the folder already.

        Raises:
            ClientError: something else is there, and nobody said that it may go.
        """
        missing, others = [], []
        for each in wanted:
            size = self.landing.find_size(each.path)
            if size == each.file.size and await self._digest(each) == each.file.sha256:
                self.board.line(f"{'have':<9} {each.path}")
                continue
            missing.append(each)
            if size is not None:
                others.append(str(each.path))
        if others and not self.options.is_forced:
            message = (
                f"{self.options.folder} has other files under the names of the version's: "
                f"{name_some(others)}. --force replaces them."
            )
            raise ClientError(message)
        return missing

    async def _digest(self, wanted: _Wanted) -> str:
        bar = self.board.bar(str(wanted.path), wanted.file.size)
        bar.say("comparing")
        own = self.landing.open_present(wanted.path)
        try:
            with self.landing.explained(wanted.path):
                return await in_thread(partial(_digest_own, own))
        finally:
            bar.close()

    def _check_room(self, missing: Sequence[_Wanted]) -> None:
        """Tell before the first byte that it cannot fit; what an earlier pull left counts."""
        needed = sum(each.file.size for each in missing)
        kept = sum(self.landing.kept_bytes(f"{each.file.sha256}.part") for each in missing)
        if needed - kept > self.landing.free_bytes():
            message = (
                f"There is no room in {self.options.folder}: {spell_size(needed)} are to come, and "
                f"{spell_size(self.landing.free_bytes())} are free."
            )
            raise ClientError(message)


def _digest_own(descriptor: int, is_over: Callable[[], bool]) -> str:
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return digest_stream(file, is_over)
