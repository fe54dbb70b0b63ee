"""Pulls from servers that lie, into folders with links that lead away."""

import asyncio
import io
from pathlib import Path

import pytest
from aiohttp import web

from maas.client.board import Board
from maas.client.errors import ClientError, RefusedError, StrangeAnswerError
from maas.client.landing import Landing
from tests.fakes.folders import contents, fill, link
from tests.fakes.registry import FakeRegistry
from tests.integration.client.pulling import FILES, fetch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

FILES_LIST = r"/api/v1/models/[^/]+/versions/[^/]+/files"


class TestHostileServer:
    @pytest.mark.parametrize(
        "path",
        [
            "../out",
            "/etc/out",
            "a/../../out",
            "a//b",
            "a\\..\\b",
            "",
            ".",
            "a\nb",
            "a\u202eb",
            ".maas/x",
            ".MAAS/x",
            "config.json/x",
            "x" * 300,
        ],
    )
    async def test_no_path_leads_out_of_the_folder(
        self, registry: FakeRegistry, board: Board, here: Path, tmp_path: Path, path: str
    ) -> None:
        registry.add("bot", "1.0.0", {"config.json": b"{}", path: b"evil"})

        with pytest.raises(StrangeAnswerError):
            await fetch(registry, board, here)

        assert list(contents(tmp_path)) == []

    @pytest.mark.parametrize("given", [b"evil" * 10, b"ev", b"evil", b""])
    async def test_other_bytes_than_announced_are_not_kept(
        self, registry: FakeRegistry, board: Board, here: Path, given: bytes
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": b"good"})

        async def lie(request: web.Request) -> web.StreamResponse:
            return web.Response(body=given)

        registry.lie("GET", ".*/files/model.gguf", lie)

        with pytest.raises((ClientError, StrangeAnswerError)):
            await fetch(registry, board, here, failures=3)

        assert "model.gguf" not in contents(here)
        assert b"evil" not in b"".join(contents(here).values())

    async def test_more_bytes_than_announced_are_not_read(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": b"good"})

        async def flood(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            await answer.prepare(request)
            await answer.write(b"good")
            while True:
                await answer.write(b"x" * 1_000_000)

        registry.lie("GET", ".*/files/model.gguf", flood)

        async with asyncio.timeout(20):
            await fetch(registry, board, here)

        assert contents(here) == {"model.gguf": b"good"}

    @pytest.mark.parametrize(
        ("status", "headers"),
        [
            (206, {"Content-Range": "bytes 1-4/4"}),
            (206, {}),
            (200, {"Content-Encoding": "gzip"}),
            (302, {"Location": "/elsewhere"}),
        ],
    )
    async def test_answers_that_make_no_sense_end_it(
        self,
        registry: FakeRegistry,
        board: Board,
        here: Path,
        status: int,
        headers: dict[str, str],
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": b"good"})

        async def lie(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=b"good", headers=headers)

        registry.lie("GET", ".*/files/model.gguf", lie)

        with pytest.raises(ClientError):
            await fetch(registry, board, here)

        assert "model.gguf" not in contents(here)

    async def test_a_size_that_fits_no_disk_is_refused_first(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)

        async def lie(request: web.Request) -> web.StreamResponse:
            file = {"path": "model.gguf", "size": 1 << 49, "sha256": "0" * 64}
            return web.json_response({"items": [file], "next_cursor": None})

        registry.lie("GET", FILES_LIST, lie)

        with pytest.raises(ClientError, match="There is no room in"):
            await fetch(registry, board, here)

    async def test_a_refused_file_is_named(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": b"good"})

        async def corrupt(request: web.Request) -> web.StreamResponse:
            return web.Response(status=500)

        registry.lie("GET", ".*/files/model.gguf", corrupt)

        with pytest.raises(RefusedError, match=r"model\.gguf cannot be pulled"):
            await fetch(registry, board, here)

    async def test_what_it_says_steers_no_terminal(
        self, registry: FakeRegistry, board: Board, here: Path, said: io.StringIO
    ) -> None:
        registry.add("bot", "1.0.0", {"[red]model[/].gguf": b"good"})

        await fetch(registry, board, here)

        assert "pulled    [red]model[/].gguf" in said.getvalue()


class TestLinks:
    async def test_nothing_is_written_through_a_link(
        self, registry: FakeRegistry, board: Board, here: Path, tmp_path: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        outside = fill(tmp_path / "outside", {"mine": b"mine"})
        link(here / "weights", to=outside)

        with pytest.raises(ClientError, match="is a link or no folder"):
            await fetch(registry, board, here, is_forced=True)

        assert contents(outside) == {"mine": b"mine"}

    @pytest.mark.parametrize("name", [".maas", "config.json"])
    async def test_no_link_stands_in_for_a_file(
        self, registry: FakeRegistry, board: Board, here: Path, tmp_path: Path, name: str
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        outside = fill(tmp_path / "outside", {"mine": b"mine"})
        link(here / name, to=outside / "mine")

        with pytest.raises(ClientError):
            await fetch(registry, board, here, is_forced=True)

        assert contents(outside) == {"mine": b"mine"}

    async def test_two_pulls_do_not_share_a_folder(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)

        with Landing(here), pytest.raises(ClientError, match="Another pull is at work"):
            await fetch(registry, board, here)
