"""A small registry on a real socket: it breaks lines and lies when it is told to."""

import base64
import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiohttp import web

from maas.client.api import API, Api
from maas.client.credentials import Access, read_url
from maas.client.patience import Patience

KEY = "maas_test_key"
TRANSIENT_PAUSE = 0.001

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(slots=True, kw_only=True)
class Version:
    status: str = "pending"
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Upload:
    meta: dict[str, str]
    length: int
    received: bytearray = field(default_factory=bytearray)
    state: str = "uploading"


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request that came in, and how many bytes of its body."""

    method: str
    path: str
    headers: dict[str, str]
    size: int = 0


@dataclass(slots=True)
class FakeRegistry:
    """It has lists of what goes wrong next; past their ends nothing does.

    `shared` are other tenants' models.

    `cuts` says after how many bytes files break off, up by tus or down; `put_cuts`, those that come
    up in one request. `lies` are handlers by method and path, instead of the honest ones.
    """

    models: dict[str, str] = field(default_factory=dict)
    shared: list[dict[str, str]] = field(default_factory=list)
    versions: dict[tuple[str, str], Version] = field(default_factory=dict)
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    put_cuts: list[int] = field(default_factory=list)
    lies: list[tuple[str, str, Answer]] = field(default_factory=list)
    port: int = 0
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def add(self, name: str, version: str, files: dict[str, bytes]) -> Version:
        """Have a ready version."""
        if name not in self.models:
            self.models[name] = str(UUID(int=next(self._numbers)))
        made = Version(status="ready", files=dict(files))
        self.versions[self.models[name], version] = made
        return made

    def version(self, name: str, version: str) -> Version:
        return self.versions[self.models[name], version]

    def lie(self, method: str, path: str, answer: Answer) -> None:
        """Answer so from now on where the whole path matches."""
        self.lies.append((method, path, answer))

    def count(self, method: str, path: str) -> int:
        return sum(one.method == method and bool(re.search(path, one.path)) for one in self.asked)

    def sent_bytes(self) -> int:
        return sum(one.size for one in self.asked)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def api(self, *, key: str = KEY, failures: int = 4) -> Api:
        """Make a client of it that waits for nothing long."""
        return Api(
            Access(url=read_url(self.url), key=key),
            patience=lambda: Patience(max_failures=failures, first_pause_seconds=TRANSIENT_PAUSE),
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(method=request.method, path=request.path, headers=dict(request.headers))
        )
        for method, path, lie in reversed(self.lies):
            if request.method == method and re.fullmatch(path, request.path):
                return await lie(request)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, "invalid-credentials", "Not signed in")
        path = request.path.removeprefix(API)
        for method, pattern, handler in self._routes():
            found = re.fullmatch(pattern, path)
            if request.method == method and found is not None:
                return await handler(request, *found.groups())
        return problem(404, "not-found", "No such route")

    def _routes(self) -> list[tuple[str, str, Callable[..., Awaitable[web.StreamResponse]]]]:
        version = r"/models/([^/]+)/versions/([^/]+)"
        return [
            ("GET", r"/models", self._list_models),
            ("POST", r"/models", self._create_model),
            ("GET", r"/models/([^/]+)", self._get_model),
            ("GET", r"/models/([^/]+)/versions", self._list_versions),
            ("POST", r"/models/([^/]+)/versions", self._create_version),
            ("GET", version, self._get_version),
            ("POST", rf"{version}/transition", self._move_version),
            ("GET", rf"{version}/files", self._list_files),
            ("PUT", rf"{version}/files/(.+)", self._put_file),
            ("GET", rf"{version}/files/(.+)", self._get_file),
            ("PUT", r"/models/([^/]+)/aliases/([^/]+)", self._put_alias),
            ("GET", r"/models/([^/]+)/aliases/([^/]+)", self._get_alias),
            ("GET", r"/models/([^/]+)/aliases", self._list_aliases),
            ("POST", r"/uploads", self._create_upload),
            ("HEAD", r"/uploads/([^/]+)", self._head_upload),
            ("GET", r"/uploads/([^/]+)", self._get_upload),
            ("PATCH", r"/uploads/([^/]+)", self._patch_upload),
            ("DELETE", r"/uploads/([^/]+)", self._delete_upload),
        ]

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        own = [self._model(name) for name in self.models]
        models: Sequence[dict[str, Any]] = self.shared if "shared" in request.query else own
        named = request.query.get("name")
        found = [model for model in models if named in {None, model["name"]}]
        return web.json_response({"items": found, "next_cursor": None})

    def share(self, name: str, *, tenant: str) -> str:
        """Have a ready version of a model of another tenant's; return the model's id."""
        made = str(UUID(int=next(self._numbers)))
        model = {"id": made, "name": name, "framework": "other", "tenant_id": tenant}
        self.shared.append(model)
        self.versions[made, "1.0.0"] = Version(status="ready", files={"evil": b"evil"})
        return made

    async def _get_model(self, _: web.Request, model: str) -> web.StreamResponse:
        own: list[dict[str, Any]] = [self._model(name) for name in self.models]
        for found in (*own, *self.shared):
            if found["id"] == model:
                return web.json_response(found)
        return problem(404, "model-not-found", "No such model")

    async def _create_model(self, request: web.Request) -> web.StreamResponse:
        name = (await request.json())["name"]
        self.models[name] = str(UUID(int=next(self._numbers)))
        return web.json_response(self._model(name), status=201)

    def _model(self, name: str) -> dict[str, object]:
        return {"id": self.models[name], "name": name, "framework": "other"}

    async def _list_versions(self, _: web.Request, model: str) -> web.StreamResponse:
        found = [
            self._version(name, each)
            for (owner, name), each in reversed(self.versions.items())
            if owner == model
        ]
        return web.json_response({"items": found, "next_cursor": None})

    async def _create_version(self, request: web.Request, model: str) -> web.StreamResponse:
        name = (await request.json())["version"]
        made = self.versions[model, name] = Version()
        return web.json_response(self._version(name, made), status=201)

    async def _get_version(self, _: web.Request, model: str, name: str) -> web.StreamResponse:
        found = self.versions.get((model, name))
        if found is None:
            return problem(404, "version-not-found", "No such version of this model")
        return web.json_response(self._version(name, found))

    async def _move_version(
        self, request: web.Request, model: str, name: str
    ) -> web.StreamResponse:
        found = self.versions[model, name]
        if found.status == "ready":
            return problem(409, "transition-refused", "The version cannot go there from here")
        found.status = (await request.json())["status"]
        return web.json_response(self._version(name, found))

    @staticmethod
    def _version(name: str, version: Version) -> dict[str, object]:
        size = sum(map(len, version.files.values()))
        files = len(version.files)
        return {"version": name, "status": version.status, "size": size, "file_count": files}

    async def _list_files(self, _: web.Request, model: str, name: str) -> web.StreamResponse:
        items = [
            {"path": path, "size": len(content), "sha256": digest_of(content)}
            for path, content in self.versions[model, name].files.items()
        ]
        return web.json_response({"items": items, "next_cursor": None})

    async def _put_file(
        self, request: web.Request, model: str, name: str, path: str
    ) -> web.StreamResponse:
        body = await self._take(request, bytearray(), self.put_cuts)
        version = self.versions[model, name]
        if digest_of(bytes(body)) != request.headers["X-Checksum-SHA256"]:
            return problem(422, "digest-mismatch", "The bytes are not those that were announced")
        version.files[path] = bytes(body)
        version.status = "uploading"
        return web.json_response({"path": path}, status=201)

    async def _get_file(
        self, request: web.Request, model: str, name: str, path: str
    ) -> web.StreamResponse:
        content = self.versions[model, name].files[path]
        etag, span = f'"{digest_of(content)}"', request.http_range
        is_part = request.headers.get("If-Range") in {None, etag} and span.start is not None
        start, stop = (span.start, span.stop) if is_part else (0, len(content))
        headers = {"ETag": etag, "Content-Length": str(stop - start)}
        if is_part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        answer = web.StreamResponse(status=206 if is_part else 200, headers=headers)
        await answer.prepare(request)
        cut = self.cuts.pop(0) if self.cuts else stop - start
        await answer.write(content[start : min(start + cut, stop)])
        if start + cut < stop:
            self._break(request)
        return answer

    async def _put_alias(self, request: web.Request, model: str, alias: str) -> web.StreamResponse:
        self.aliases[model, alias] = (await request.json())["version"]
        return await self._get_alias(request, model, alias)

    async def _get_alias(self, _: web.Request, model: str, alias: str) -> web.StreamResponse:
        found = self.aliases.get((model, alias))
        if found is None:
            return problem(404, "alias-not-found", "No such alias of this model")
        return web.json_response({"alias": alias, "version": found})

    async def _list_aliases(self, _: web.Request, model: str) -> web.StreamResponse:
        items = [
            {"alias": alias, "version": version}
            for (owner, alias), version in self.aliases.items()
            if owner == model
        ]
        return web.json_response({"items": items, "next_cursor": None})

    async def _create_upload(self, request: web.Request) -> web.StreamResponse:
        pairs = (pair.split(" ") for pair in request.headers["Upload-Metadata"].split(","))
        meta = {key: base64.b64decode(value).decode() for key, value in pairs}
        name = f"upload-{next(self._numbers)}"
        self.uploads[name] = Upload(meta=meta, length=int(request.headers["Upload-Length"]))
        location = f"{self.url}{API}/uploads/{name}"
        return web.Response(status=201, headers={"Location": location, **TUS})

    async def _head_upload(self, _: web.Request, name: str) -> web.StreamResponse:
        upload = self.uploads.get(name)
        if upload is None:
            return web.Response(status=404)
        return web.Response(headers=self._offset(upload))

    async def _get_upload(self, _: web.Request, name: str) -> web.StreamResponse:
        return web.json_response({"state": self.uploads[name].state})

    async def _patch_upload(self, request: web.Request, name: str) -> web.StreamResponse:
        upload = self.uploads.get(name)
        if upload is None:
            return problem(404, "upload-not-found", "No such upload")
        if int(request.headers["Upload-Offset"]) != len(upload.received):
            return problem(409, "upload-offset-mismatch", "Another offset")
        await self._take(request, upload.received, self.cuts)
        if len(upload.received) == upload.length:
            content = bytes(upload.received)
            is_right = digest_of(content) == upload.meta["sha256"]
            upload.state = "done" if is_right else "failed"
            place = upload.meta["model_id"], upload.meta["version"]
            if is_right:
                self.versions[place].files[upload.meta["path"]] = content
                self.versions[place].status = "uploading"
        return web.Response(status=204, headers=self._offset(upload))

    async def _delete_upload(self, _: web.Request, name: str) -> web.StreamResponse:
        del self.uploads[name]
        return web.Response(status=204, headers=TUS)

    @staticmethod
    def _offset(upload: Upload) -> dict[str, str]:
        return {"Upload-Offset": str(len(upload.received)), **TUS}

    async def _take(self, request: web.Request, into: bytearray, cuts: list[int]) -> bytearray:
        """Take a body, all of it or as much as the next cut allows."""
        cut = cuts.pop(0) if cuts else None
        asked, came = self.asked[-1], 0
        while chunk := await request.content.readany():
            kept = chunk if cut is None else chunk[: cut - came]
            into += kept
            came += len(kept)
            asked.size += len(kept)
            if cut is not None and came >= cut:
                self._break(request)
        return into

    @staticmethod
    def _break(request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError


TUS = {"Tus-Resumable": "1.0.0"}


def problem(status: int, code: str, title: str, **headers: str) -> web.Response:
    body = {"status": status, "code": code, "title": title, "detail": f"{title}, it says."}
    return web.json_response(
        body, status=status, content_type="application/problem+json", headers=headers
    )


@asynccontextmanager
async def serving_registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = int(runner.addresses[0][1])
    try:
        yield fake
    finally:
        await runner.cleanup()
