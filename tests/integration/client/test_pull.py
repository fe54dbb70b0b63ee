"""Versions on their way down, over lines that break, from servers that lie."""

import asyncio
import io
import json
import os
from pathlib import Path

import pytest
from aiohttp import web

from maas.client.board import Board
from maas.client.errors import ClientError, LineBrokenError, RefusedError, StrangeAnswerError
from maas.client.landing import Landing
from maas.client.pull import Pulled, PullOptions, pull
from tests.fakes.folders import contents, fill, link
from tests.fakes.registry import FakeRegistry, digest_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LARGE = os.urandom(700_001)
FILES = {"config.json": b"{}", "weights/model.safetensors": LARGE}
FILES_LIST = r"/api/v1/models/[^/]+/versions/[^/]+/files"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "here"


async def fetch(
    registry: FakeRegistry,
    board: Board,
    folder: Path,
    reference: str = "bot",
    *,
    is_forced: bool = False,
    parallel: int = 1,
    failures: int = 4,
) -> Pulled:
    options = PullOptions(
        reference=reference,
        folder=folder,
        version=None,
        is_forced=is_forced,
        parallel=parallel,
        stretch_bytes=100_000,
    )
    async with registry.api(failures=failures) as api:
        return await pull(api, options, board)


def ranges(registry: FakeRegistry) -> list[str]:
    return [one.headers["Range"] for one in registry.asked if "Range" in one.headers]


class TestPull:
    @pytest.mark.parametrize("parallel", [1, 4])
    async def test_a_version_comes_byte_for_byte(
        self, registry: FakeRegistry, board: Board, folder: Path, parallel: int
    ) -> None:
        odd = {"empty": b"", "a b/50% #1?.txt": b"odd", "重み/模型.bin": b"name"}
        registry.add("bot", "1.0.0", FILES | odd)

        done = await fetch(registry, board, folder, parallel=parallel)

        assert contents(folder) == FILES | odd
        assert (done.version.version, done.files, done.fetched) == ("1.0.0", 5, 5)
        assert not (folder / ".maas").exists()

    async def test_large_files_come_in_stretches_side_by_side(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})

        await fetch(registry, board, folder, parallel=3)

        assert sorted(ranges(registry)) == [
            "bytes=0-233332",
            "bytes=233333-466666",
            "bytes=466667-700000",
        ]

    async def test_the_newest_ready_version_is_meant_where_none_is_named(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        for version in ("1.0.0", "1.1.0", "2.0.0"):
            registry.add("bot", version, {"version": version.encode()})
        registry.version("bot", "2.0.0").status = "uploading"

        await fetch(registry, board, folder)

        assert contents(folder) == {"version": b"1.1.0"}

    @pytest.mark.parametrize("reference", ["acme/bot:7b@production", "acme/bot:7b:1.0.0"])
    async def test_versions_go_by_alias_and_by_name(
        self, registry: FakeRegistry, board: Board, folder: Path, reference: str
    ) -> None:
        for version in ("1.0.0", "2.0.0"):
            registry.add("acme/bot:7b", version, {"version": version.encode()})
        registry.aliases[registry.models["acme/bot:7b"], "production"] = "1.0.0"

        await fetch(registry, board, folder, reference)

        assert contents(folder) == {"version": b"1.0.0"}

    async def test_a_name_of_two_meanings_is_asked_about(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("acme/bot:7b", "1.0.0", FILES)
        registry.add("acme/bot", "7b", FILES)

        with pytest.raises(ClientError, match=r"can mean version 1\.0\.0 of acme/bot:7b, or ver"):
            await fetch(registry, board, folder, "acme/bot:7b")

    async def test_the_same_bytes_come_once(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"a": LARGE, "deep/b": LARGE})

        await fetch(registry, board, folder)

        assert contents(folder) == {"a": LARGE, "deep/b": LARGE}
        assert registry.count("GET", "/files/") == 1

    async def test_what_is_there_stays_and_other_files_are_left_alone(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        fill(folder, {"config.json": FILES["config.json"], "notes.txt": b"mine"})

        done = await fetch(registry, board, folder)

        assert done.fetched == 1
        assert registry.count("GET", "/files/config") == 0
        assert contents(folder) == FILES | {"notes.txt": b"mine"}

    async def test_other_bytes_are_replaced_only_where_that_is_said(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        fill(folder, {"config.json": b"mine"})

        with pytest.raises(ClientError, match=r"other files .*: config\.json\. --force replaces"):
            await fetch(registry, board, folder)
        assert contents(folder) == {"config.json": b"mine"}

        await fetch(registry, board, folder, is_forced=True)
        assert contents(folder) == FILES

    async def test_an_open_version_is_not_pulled(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES).status = "uploading"

        with pytest.raises(ClientError, match="is uploading: its files may still change"):
            await fetch(registry, board, folder, "bot:1.0.0")

    async def test_what_is_not_there_is_told_with_what_is(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)

        with pytest.raises(ClientError, match=r"bot has no version 9\.9\.9; it has 1\.0\.0"):
            await fetch(registry, board, folder, "bot:9.9.9")
        with pytest.raises(ClientError, match="no model cat that you may read"):
            await fetch(registry, board, folder, "cat")


class TestBrokenLine:
    @pytest.mark.parametrize("parallel", [1, 4])
    async def test_it_goes_on_where_it_ended(
        self, registry: FakeRegistry, board: Board, folder: Path, parallel: int
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [100_000, 1, 0, 50_000]

        await fetch(registry, board, folder, parallel=parallel)

        assert contents(folder) == {"model.gguf": LARGE}

    async def test_no_byte_comes_twice(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [300_000, 200_000]

        await fetch(registry, board, folder)

        assert ranges(registry) == [
            "bytes=0-700000",
            "bytes=300000-700000",
            "bytes=500000-700000",
        ]

    async def test_the_next_pull_goes_on(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [300_000, 0, 0]
        with pytest.raises(LineBrokenError):
            await fetch(registry, board, folder, failures=2)
        assert "model.gguf" not in contents(folder)
        registry.asked.clear()
        registry.cuts = []

        await fetch(registry, board, folder)

        assert ranges(registry) == ["bytes=300000-700000"]
        assert contents(folder) == {"model.gguf": LARGE}

    async def test_a_damaged_rest_of_an_earlier_pull_is_fetched_anew(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [300_000, 0, 0]
        with pytest.raises(LineBrokenError):
            await fetch(registry, board, folder, failures=2)
        fill(folder, {f".maas/{digest_of(LARGE)}.part": b"?" * 300_000})
        registry.cuts = []

        await fetch(registry, board, folder)

        assert contents(folder) == {"model.gguf": LARGE}

    @pytest.mark.parametrize("journal", ["", "{", "[]", '{"size": 5, "stretches": []}'])
    async def test_a_journal_that_cannot_be_is_not_believed(
        self, registry: FakeRegistry, board: Board, folder: Path, journal: str
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        fill(folder, {f".maas/{digest_of(LARGE)}.json": journal.encode()})

        await fetch(registry, board, folder)

        assert contents(folder) == {"model.gguf": LARGE}


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
        self, registry: FakeRegistry, board: Board, folder: Path, tmp_path: Path, path: str
    ) -> None:
        registry.add("bot", "1.0.0", {"config.json": b"{}", path: b"evil"})

        with pytest.raises(StrangeAnswerError):
            await fetch(registry, board, folder)

        assert list(contents(tmp_path)) == []

    @pytest.mark.parametrize("given", [b"evil" * 10, b"ev", b"evil", b""])
    async def test_other_bytes_than_announced_are_not_kept(
        self, registry: FakeRegistry, board: Board, folder: Path, given: bytes
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": b"good"})

        async def lie(request: web.Request) -> web.StreamResponse:
            return web.Response(body=given)

        registry.lie("GET", ".*/files/model.gguf", lie)

        with pytest.raises((ClientError, StrangeAnswerError)):
            await fetch(registry, board, folder, failures=3)

        assert "model.gguf" not in contents(folder)
        assert b"evil" not in b"".join(contents(folder).values())

    async def test_more_bytes_than_announced_are_not_read(
        self, registry: FakeRegistry, board: Board, folder: Path
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
            await fetch(registry, board, folder)

        assert contents(folder) == {"model.gguf": b"good"}

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
        folder: Path,
        status: int,
        headers: dict[str, str],
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": b"good"})

        async def lie(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=b"good", headers=headers)

        registry.lie("GET", ".*/files/model.gguf", lie)

        with pytest.raises(ClientError):
            await fetch(registry, board, folder)

        assert "model.gguf" not in contents(folder)

    async def test_a_size_that_fits_no_disk_is_refused_first(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)

        async def lie(request: web.Request) -> web.StreamResponse:
            file = {"path": "model.gguf", "size": 1 << 49, "sha256": "0" * 64}
            return web.json_response({"items": [file], "next_cursor": None})

        registry.lie("GET", FILES_LIST, lie)

        with pytest.raises(ClientError, match="There is no room in"):
            await fetch(registry, board, folder)

    async def test_a_refused_file_is_named(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": b"good"})

        async def corrupt(request: web.Request) -> web.StreamResponse:
            return web.Response(status=500)

        registry.lie("GET", ".*/files/model.gguf", corrupt)

        with pytest.raises(RefusedError, match=r"model\.gguf cannot be pulled"):
            await fetch(registry, board, folder)

    async def test_what_it_says_steers_no_terminal(
        self, registry: FakeRegistry, board: Board, folder: Path, said: io.StringIO
    ) -> None:
        registry.add("bot", "1.0.0", {"[red]model[/].gguf": b"good"})

        await fetch(registry, board, folder)

        assert "pulled    [red]model[/].gguf" in said.getvalue()


class TestLinks:
    async def test_nothing_is_written_through_a_link(
        self, registry: FakeRegistry, board: Board, folder: Path, tmp_path: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        outside = fill(tmp_path / "outside", {"mine": b"mine"})
        link(folder / "weights", to=outside)

        with pytest.raises(ClientError, match="is a link or no folder"):
            await fetch(registry, board, folder, is_forced=True)

        assert contents(outside) == {"mine": b"mine"}

    @pytest.mark.parametrize("name", [".maas", "config.json"])
    async def test_no_link_stands_in_for_a_file(
        self, registry: FakeRegistry, board: Board, folder: Path, tmp_path: Path, name: str
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        outside = fill(tmp_path / "outside", {"mine": b"mine"})
        link(folder / name, to=outside / "mine")

        with pytest.raises(ClientError):
            await fetch(registry, board, folder, is_forced=True)

        assert contents(outside) == {"mine": b"mine"}

    async def test_two_pulls_do_not_share_a_folder(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)

        with Landing(folder), pytest.raises(ClientError, match="Another pull is at work"):
            await fetch(registry, board, folder)


async def test_the_journal_says_what_is_missing(
    registry: FakeRegistry, board: Board, folder: Path
) -> None:
    registry.add("bot", "1.0.0", {"model.gguf": LARGE})
    registry.cuts = [300_000, 0, 0]

    with pytest.raises(LineBrokenError):
        await fetch(registry, board, folder, failures=2)

    journal = contents(folder)[f".maas/{digest_of(LARGE)}.json"]
    assert json.loads(journal) == {"size": 700_001, "stretches": [{"at": 300_000, "stop": 700_001}]}
