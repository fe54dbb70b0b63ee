"""Files on their way up: small ones in one request, large ones by tus 1.0, which goes on."""

import asyncio
import base64
from dataclasses import dataclass

import aiohttp
from pydantic import BaseModel

from maas.client.api import API, Api, read_json, validate
from maas.client.board import Bar
from maas.client.bodies import Body, send_body
from maas.client.errors import (
    ClientError,
    LineBrokenError,
    RefusedError,
    StrangeAnswerError,
    TransientError,
)
from maas.client.folder import LocalFile
from maas.client.push_state import PushState
from maas.client.registry import RemoteModel, file_path

MIB = 1024 * 1024
MAX_STARTS = 3
FIRST_LOOK_SECONDS = 0.1
LONGEST_LOOK_SECONDS = 2.0
LONGEST_CHECK_SECONDS = 1800.0
OCTETS = "application/octet-stream"

_TUS = {"Tus-Resumable": "1.0.0"}
_GONE = frozenset({404, 410})
_CONFLICT = 409
_ENDED = "upload-ended"
_UNPROCESSABLE = 422


class _ProblemRead(BaseModel):
    code: str = ""
    detail: str = ""


class _UploadRead(BaseModel):
    state: str
    problem: _ProblemRead | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPace:
    """Files up to `small_bytes` go in one request; of others, each carries `stretch_bytes`.

    That is little enough for proxies that hold a body back. A line that takes nothing for
    `stall_seconds` is broken.
    """

    small_bytes: int = 16 * MIB
    stretch_bytes: int = 64 * MIB
    stall_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploader:
    """Sends files into one version."""

    api: Api
    model: RemoteModel
    version: str
    state: PushState
    pace: UploadPace

    async def send(self, file: LocalFile, sha256: str, bar: Bar) -> None:
        """Send a file, from where an earlier try ended.

        Raises:
            LineBrokenError: what arrived of it stays.
            ClientError: it cannot be sent; the message names the file.
        """
        try:
            if file.size <= self.pace.small_bytes:
                await self._put(file, sha256, bar)
            else:
                await self._send_by_tus(file, sha256, bar)
        except RefusedError as exc:
            file.check_unchanged()
            text = f"{file.path} was refused. {exc.message}"
            raise RefusedError(status=exc.status, code=exc.code, text=text) from None

    async def _put(self, file: LocalFile, sha256: str, bar: Bar) -> None:
        location = file_path(self.model, self.version, str(file.path))
        headers = {"Content-Type": OCTETS, "X-Checksum-SHA256": sha256}
        patience = self.api.patience(bar.warn)

        async def attempt() -> None:
            bar.set(0)
            body = Body(
                file=file,
                start=0,
                stop=file.size,
                moved=bar.moved,
                stall_seconds=self.pace.stall_seconds,
            )
            await send_body(self.api, "PUT", str(self.api.url(location)), body, headers)

        await patience.persist(attempt)
        bar.set(file.size)

    async def _send_by_tus(self, file: LocalFile, sha256: str, bar: Bar) -> None:
        for _ in range(MAX_STARTS):
            location, offset = await self._begin(file, sha256, bar)
            if await self._send_rest(file, location, offset, bar):
                await self._wait_until_taken(file, location, bar)
                self.state.drop_upload(str(file.path))
                return
            self.state.drop_upload(str(file.path))
        message = f"{file.path} was begun {MAX_STARTS} times, and the server forgot it each time."
        raise ClientError(message)

    async def _begin(self, file: LocalFile, sha256: str, bar: Bar) -> tuple[str, int]:
        """Find the upload that an earlier try began, or begin one; tell how far it is."""
        known = self.state.find_upload(str(file.path))
        if known is not None and known.sha256 == sha256:
            offset = await self._ask_offset(file, known.location, bar)
            if offset is not None:
                return known.location, offset
        elif known is not None:
            # Of other bytes, which the file had then; while it lasts the version stays open.
            await self.end(str(file.path), known.location)
        location = await self.api.patience(bar.warn).persist(lambda: self._create(file, sha256))
        self.state.keep_upload(str(file.path), sha256, location)
        return location, 0

    async def end(self, path: str, location: str) -> None:
        """End an upload that nobody goes on with; it may be gone already."""

        async def attempt() -> None:
            try:
                async with self.api.request("DELETE", self.api.own_url(location), headers=_TUS):
                    pass
            except RefusedError as exc:
                if exc.status not in _GONE and exc.code != _ENDED:
                    raise

        await self.api.patience().persist(attempt)
        self.state.drop_upload(path)

    async def _create(self, file: LocalFile, sha256: str) -> str:
        named = {
            "model_id": str(self.model.id),
            "version": self.version,
            "path": str(file.path),
            "media_type": OCTETS,
            "sha256": sha256,
        }
        pairs = (
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in named.items()
        )
        headers = {**_TUS, "Upload-Length": str(file.size), "Upload-Metadata": ",".join(pairs)}
        async with self.api.request(
            "POST", self.api.url(f"{API}/uploads"), headers=headers
        ) as answer:
            location = answer.headers.get("Location", "")
            return str(self.api.own_url(location))

    async def _ask_offset(self, file: LocalFile, location: str, bar: Bar) -> int | None:
        """Ask how many bytes are safe there; `None` if the upload is gone."""

        async def attempt() -> int | None:
            try:
                async with self.api.request(
                    "HEAD", self.api.own_url(location), headers=_TUS
                ) as answer:
                    return _read_offset(answer, file)
            except RefusedError as exc:
                if exc.status in _GONE:
                    return None
                raise

        return await self.api.patience(bar.warn).persist(attempt)

    async def _send_rest(self, file: LocalFile, location: str, offset: int, bar: Bar) -> bool:
        """Send what is missing; tell whether all of it is there, or the upload is gone."""
        patience = self.api.patience(bar.warn)
        bar.set(0)
        bar.resume(offset)
        while offset < file.size:
            try:
                there: int | None = await self._send_stretch(file, location, offset, bar)
                failure = TransientError("the server takes no bytes")
            except TransientError as exc:
                failure = exc
                there = await self._ask_offset(file, location, bar)
            if there is None:
                return False
            if there > offset:
                patience.moved()
                bar.say("")
            bar.set(there)
            if there <= offset:
                await patience.wait(failure)
            offset = there
        return True

    async def _send_stretch(self, file: LocalFile, location: str, offset: int, bar: Bar) -> int:
        body = Body(
            file=file,
            start=offset,
            stop=min(offset + self.pace.stretch_bytes, file.size),
            moved=bar.moved,
            stall_seconds=self.pace.stall_seconds,
        )
        headers = {
            **_TUS,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        try:
            answer = await send_body(self.api, "PATCH", location, body, headers)
        except RefusedError as exc:
            if exc.code == _ENDED:
                return file.size
            if exc.status in {_CONFLICT, *_GONE}:
                # Another offset than ours, or no upload any more: the server is asked again.
                raise TransientError(exc.message) from exc
            raise
        return _read_offset(answer, file)

    async def _wait_until_taken(self, file: LocalFile, location: str, bar: Bar) -> None:
        """Wait until the server has compared the digest and put the file into its version."""
        pause, waited = FIRST_LOOK_SECONDS, 0.0
        while waited < LONGEST_CHECK_SECONDS:
            found = await self.api.patience(bar.warn).persist(lambda: self._look(location))
            if found.state == "done":
                return
            if found.state == "failed":
                self.state.drop_upload(str(file.path))
                problem = found.problem or _ProblemRead()
                text = problem.detail or "The server gives no reason."
                raise RefusedError(status=_UNPROCESSABLE, code=problem.code, text=text)
            bar.say("all there; the server is checking it")
            await asyncio.sleep(pause)
            waited += pause
            pause = min(pause * 2, LONGEST_LOOK_SECONDS)
        raise LineBrokenError(
            f"All of {file.path} is there, and the server has not checked it in "
            f"{LONGEST_CHECK_SECONDS / 60:.0f} minutes: is its worker running?"
        )

    async def _look(self, location: str) -> _UploadRead:
        async with self.api.request("GET", self.api.own_url(location), headers=_TUS) as answer:
            return validate(_UploadRead, await read_json(answer))


def _read_offset(answer: aiohttp.ClientResponse, file: LocalFile) -> int:
    text = answer.headers.get("Upload-Offset", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19) or int(text) > file.size:  # noqa: PLR2004  what 64 bits hold
        raise StrangeAnswerError("it does not say how far the upload is")
    return int(text)
