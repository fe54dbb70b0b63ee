"""`maas model push`: a folder becomes a version, and what is there already is not sent again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from maas.client.api import Api
from maas.client.board import Bar, Board, name_some, spell_size
from maas.client.errors import ClientError, RefusedError
from maas.client.folder import LocalFile, Survey, digest_of, in_thread, survey
from maas.client.groups import run_all
from maas.client.push_state import PushState, open_push_state
from maas.client.registry import MAX_FILES, Registry, RemoteFile, RemoteModel, RemoteVersion
from maas.client.uploads import Uploader, UploadPace

FIRST_VERSION = "1.0.0"
UNDER_WAY = "uploads-under-way"
OPEN = frozenset({"pending", "uploading"})
TAKEN = OPEN | {"ready"}

_NUMBERED = re.compile(r"(?P<head>v?(?:\d{1,9}\.){0,5})(?P<last>\d{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    folder: Path
    name: str | None
    version: str | None
    alias: str | None
    framework: str | None
    is_ready: bool
    is_new: bool
    with_hidden: bool
    with_links: bool
    parallel: int
    pace: UploadPace = field(default_factory=UploadPace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did: `sent` of `files` were not there yet."""

    model: str
    version: str
    status: str
    files: int
    sent: int
    size: int


async def push(api: Api, options: PushOptions, board: Board) -> Pushed:
    """Send what is missing, and publish the version if that is wanted.

    Raises:
        LineBrokenError: it broke too often; what arrived stays, and the next push goes on.
        ClientError: something else is in the way; the message says what.
    """
    found = survey(options.folder, with_hidden=options.with_hidden, with_links=options.with_links)
    if len(found.files) > MAX_FILES:
        message = f"A version has at most {MAX_FILES} files; {options.folder} has more."
        raise ClientError(message)
    if found.left_out:
        board.line(f"{'left out':<9} {name_some(found.left_out)}  (hidden; --hidden takes them)")
    registry = Registry(api=api)
    name = options.name or options.folder.resolve().name
    model = await registry.find_model(name)
    if model is None:
        model = await registry.create_model(name, framework=options.framework or found.framework)
        board.line(f"{'made':<9} model {model.name} ({model.framework})")
    state = open_push_state(url=str(api.access.url), model=str(model.id), folder=options.folder)
    version = await _choose_version(registry, model, options, state, found=found, board=board)
    work = _Push(
        registry=registry,
        model=model,
        version=version,
        state=state,
        board=board,
        pace=options.pace,
    )
    return await work.run(found, options)


async def _choose_version(
    registry: Registry,
    model: RemoteModel,
    options: PushOptions,
    state: PushState,
    *,
    found: Survey,
    board: Board,
) -> RemoteVersion:
    """Take the version that was asked for, the one an earlier push began, or a new one.

    A newest version that is this folder already is taken, too: whoever is not sure that a push
    ended runs it again.
    """
    if options.version is not None:
        version = await registry.find_version(model, options.version)
        if version is None:
            version = await registry.create_version(model, options.version)
        state.begin(version.version)
        return version

    async def is_same(version: RemoteVersion) -> bool:
        if version.status not in TAKEN:
            return False
        there = await registry.list_files(model, version.version)
        if not await _is_all_of_it(there, found, state, board):
            return False
        hint = "" if options.is_new else "  (--new makes another version)"
        board.line(f"{'same':<9} {model.name} {version.version} has exactly these files{hint}")
        return True

    begun = await _find_begun(registry, model, state, is_new=options.is_new)
    if begun is not None and (begun.status in OPEN or await is_same(begun)):
        return begun
    versions = await registry.list_versions(model)
    if versions and not options.is_new and await is_same(versions[0]):
        version = versions[0]
    else:
        version = await registry.create_version(model, _next_version(versions))
    state.begin(version.version)
    return version


async def _find_begun(
    registry: Registry, model: RemoteModel, state: PushState, *, is_new: bool
) -> RemoteVersion | None:
    """Find the version of a push that did not end, or of one that left it open.

    Where a new one is wanted, the first alone counts: running that push again goes on with it.
    """
    if state.version is None or (is_new and state.is_whole):
        return None
    begun = await registry.find_version(model, state.version)
    if begun is None or (state.is_whole and begun.status not in OPEN):
        return None
    return begun


async def _is_all_of_it(
    there: Sequence[RemoteFile], found: Survey, state: PushState, board: Board
) -> bool:
    """Tell whether a version has the folder's files and no others, by their digests."""
    local = {str(file.path): file for file in found.files}
    if {file.path: file.size for file in there} != {
        path: file.size for path, file in local.items()
    }:
        return False
    for each in sorted(there, key=lambda file: file.size):
        file = local[each.path]
        bar = board.bar(str(file.path), file.size)
        try:
            if await _find_digest(file, state, bar) != each.sha256:
                return False
        finally:
            bar.close()
    return True


async def _find_digest(file: LocalFile, state: PushState, bar: Bar) -> str:
    sha256 = state.find_digest(file)
    if sha256 is None:
        bar.say("hashing")
        sha256 = await in_thread(partial(digest_of, file.place))
        file.check_unchanged()
        state.keep_digest(file, sha256)
        bar.say("")
    return sha256


def _next_version(versions: Sequence[RemoteVersion]) -> str:
    """Count on from the newest version.

    Raises:
        ClientError: its name does not end in a number.
    """
    if not versions:
        return FIRST_VERSION
    newest = versions[0].version
    found = _NUMBERED.fullmatch(newest)
    if found is None:
        message = f"The newest version is called {newest}, so name the next one with --version."
        raise ClientError(message)
    following = f"{found['head']}{int(found['last']) + 1}"
    if any(version.version == following for version in versions):
        message = f"There is a {following} beside the newest version, {newest}: use --version."
        raise ClientError(message)
    return following


@dataclass(frozen=True, slots=True, kw_only=True)
class _Push:
    registry: Registry
    model: RemoteModel
    version: RemoteVersion
    state: PushState
    board: Board
    pace: UploadPace

    async def run(self, found: Survey, options: PushOptions) -> Pushed:
        there = await self._list_there()
        self._check_strangers(found, there)
        await self._end_forsaken(found)
        self.board.expect(sum(file.size for file in found.files))
        sent: list[LocalFile] = []
        work = [partial(self._send, file, there.get(str(file.path)), sent) for file in found.files]
        await run_all(work, at_once=options.parallel)
        status = await self._publish(options)
        if options.alias is not None:
            await self._point(options.alias)
        if status in OPEN:
            self.state.note_whole()
        else:
            self.state.end()
        return Pushed(
            model=self.model.name,
            version=self.version.version,
            status=status,
            files=len(found.files),
            sent=len(sent),
            size=sum(file.size for file in found.files),
        )

    async def _point(self, alias: str) -> None:
        """Point the alias at the version; where it does so already, nothing is asked for."""
        version = self.version.version
        before = await self.registry.find_alias(self.model, alias)
        if before is not None and before.version == version:
            self.board.line(f"{'alias':<9} {alias} is {version} already")
            return
        await self.registry.set_alias(self.model, alias, version)
        self.board.line(f"{'alias':<9} {alias} is {version} now")

    async def _list_there(self) -> dict[str, RemoteFile]:
        files = await self.registry.list_files(self.model, self.version.version)
        return {file.path: file for file in files}

    def _check_strangers(self, found: Survey, there: dict[str, RemoteFile]) -> None:
        """Refuse to mix this folder with what somebody else has put into the version."""
        strangers = sorted(there.keys() - {str(file.path) for file in found.files})
        if strangers:
            message = (
                f"{self.model.name} {self.version.version} has files that the folder has not: "
                f"{name_some(strangers)}. Choose another version with --version, or delete them."
            )
            raise ClientError(message)

    async def _send(self, file: LocalFile, there: RemoteFile | None, sent: list[LocalFile]) -> None:
        """Send a file, unless the version has its bytes already."""
        bar = self.board.bar(str(file.path), file.size)
        try:
            sha256 = await _find_digest(file, self.state, bar)
            if there is not None and there.sha256 == sha256:
                bar.set(file.size)
                bar.close("there", spell_size(file.size))
                return
            self._check_open(file, there)
            await self._uploader().send(file, sha256, bar)
        except BaseException:
            # Whatever ended it, a Ctrl-C too, a bar that stays would hide what is said next.
            bar.close()
            raise
        sent.append(file)
        bar.close("sent" if there is None else "replaced", spell_size(file.size))

    def _uploader(self) -> Uploader:
        return Uploader(
            api=self.registry.api,
            model=self.model,
            version=self.version.version,
            state=self.state,
            pace=self.pace,
        )

    async def _end_forsaken(self, found: Survey) -> None:
        """End uploads of files that the folder has no more: they would keep the version open."""
        paths = {str(file.path) for file in found.files}
        for path, upload in self.state.list_uploads().items():
            if path not in paths:
                await self._uploader().end(path, upload.location)

    def _check_open(self, file: LocalFile, there: RemoteFile | None) -> None:
        if self.version.status in OPEN:
            return
        what = "has not" if there is None else "has with other bytes"
        message = (
            f"{self.model.name} {self.version.version} is {self.version.status}, so its files "
            f"never change, and it {what} {file.path}. Choose another version with --version."
        )
        raise ClientError(message)

    async def _publish(self, options: PushOptions) -> str:
        """Make the version ready, if it is to be and is not yet."""
        if self.version.status not in OPEN:
            return self.version.status
        if not options.is_ready:
            return "uploading"
        try:
            ready = await self.registry.make_ready(self.model, self.version.version)
        except RefusedError as exc:
            if exc.code == UNDER_WAY:
                raise ClientError(
                    f"All files are there, but {self.model.name} {self.version.version} is not "
                    "ready: somebody else's upload is under way, or one that a broken line left "
                    "behind, which ends by itself within a day. Run the same command again then."
                ) from None
            raise
        return ready.status
