"""Folders on their way up, over lines that break, to servers that forget."""

import asyncio
import io
import os
from pathlib import Path

import pytest
from aiohttp import web

from maas.client.board import Board
from maas.client.errors import (
    ClientError,
    LineBrokenError,
    RefusedError,
    StrangeAnswerError,
)
from maas.client.push import Pushed, PushOptions, push
from maas.client.uploads import UploadPace
from tests.fakes.folders import fill
from tests.fakes.registry import KEY, FakeRegistry, problem, serving_registry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LARGE = os.urandom(700_001)
PACE = UploadPace(small_bytes=1_000, stretch_bytes=200_000)
FILES = {"config.json": b"{}", "weights/model.safetensors": LARGE}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "bot", FILES)


async def send(
    registry: FakeRegistry,
    board: Board,
    folder: Path,
    *,
    version: str | None = None,
    alias: str | None = None,
    is_ready: bool = True,
    is_new: bool = False,
    failures: int = 4,
    key: str = KEY,
    pace: UploadPace = PACE,
) -> Pushed:
    options = PushOptions(
        folder=folder,
        name=None,
        version=version,
        alias=alias,
        framework=None,
        is_ready=is_ready,
        is_new=is_new,
        with_hidden=False,
        with_links=False,
        parallel=2,
        pace=pace,
    )
    async with registry.api(failures=failures, key=key) as api:
        return await push(api, options, board)


class TestPush:
    async def test_a_folder_becomes_a_ready_version(
        self, registry: FakeRegistry, board: Board, folder: Path, said: io.StringIO
    ) -> None:
        done = await send(registry, board, folder, alias="production")

        assert registry.version("bot", "1.0.0").files == FILES
        assert (done.model, done.version, done.status) == ("bot", "1.0.0", "ready")
        assert (done.files, done.sent, done.size) == (2, 2, len(LARGE) + 2)
        assert registry.aliases == {(registry.models["bot"], "production"): "1.0.0"}
        assert "made      model bot" in said.getvalue()
        assert "sent      weights/model.safetensors  700.0 kB" in said.getvalue()

    async def test_what_is_there_is_not_sent_again(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        await send(registry, board, folder, is_ready=False)
        before = registry.sent_bytes()

        done = await send(registry, board, folder)

        assert (done.version, done.status, done.sent) == ("1.0.0", "ready", 0)
        assert registry.sent_bytes() == before

    async def test_the_next_push_is_the_next_version(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        await send(registry, board, folder)
        fill(folder, {"config.json": b"[]"})

        done = await send(registry, board, folder)

        assert (done.version, done.sent) == ("1.0.1", 2)

    @pytest.mark.parametrize("is_ready", [True, False])
    async def test_the_same_folder_is_the_same_version(
        self,
        registry: FakeRegistry,
        board: Board,
        folder: Path,
        said: io.StringIO,
        is_ready: bool,  # noqa: FBT001  pytest passes parameters by name
    ) -> None:
        await send(registry, board, folder, alias="production")

        again = await send(registry, board, folder, is_ready=is_ready, alias="production")

        assert (again.version, again.status, again.sent) == ("1.0.0", "ready", 0)
        assert registry.count("POST", "/versions$") == 1
        assert registry.count("PUT", "/aliases/") == 1
        assert "same      bot 1.0.0 has exactly these files" in said.getvalue()
        assert "alias     production is 1.0.0 already" in said.getvalue()

    async def test_an_alias_moves_to_the_version_that_is_the_same(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "0.9.0", {})
        registry.add("bot", "1.0.0", FILES)
        place = registry.models["bot"], "production"
        registry.aliases[place] = "0.9.0"

        done = await send(registry, board, folder, alias="production")

        assert (done.version, registry.aliases[place]) == ("1.0.0", "1.0.0")

    async def test_an_open_version_of_another_machine_is_finished(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES).status = "uploading"

        done = await send(registry, board, folder)

        assert (done.version, done.status, done.sent) == ("1.0.0", "ready", 0)

    @pytest.mark.parametrize("status", ["archived", "deprecated", "validating"])
    async def test_a_version_that_is_out_of_use_is_not_taken(
        self, registry: FakeRegistry, board: Board, folder: Path, status: str
    ) -> None:
        registry.add("bot", "1.0.0", FILES).status = status

        assert (await send(registry, board, folder)).version == "1.0.1"

    async def test_an_older_version_of_the_same_bytes_is_not_taken(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        registry.add("bot", "1.1.0", {"config.json": b"[]"})

        assert (await send(registry, board, folder)).version == "1.1.1"

    async def test_the_same_bytes_are_another_version_if_told_so(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        await send(registry, board, folder)

        draft = await send(registry, board, folder, is_new=True, is_ready=False)
        other = await send(registry, board, folder, is_new=True)
        named = await send(registry, board, folder, version="2.0.0")

        assert (draft.version, draft.sent, draft.status) == ("1.0.1", 2, "uploading")
        assert (other.version, other.sent, other.status) == ("1.0.2", 2, "ready")
        assert (named.version, named.sent) == ("2.0.0", 2)

    async def test_a_new_version_that_was_begun_is_gone_on_with(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        await send(registry, board, folder)
        registry.cuts = [150_000, 0, 0, 0]
        with pytest.raises(LineBrokenError):
            await send(registry, board, folder, is_new=True, failures=3)
        registry.cuts = []

        async def refuse(request: web.Request) -> web.StreamResponse:
            return problem(403, "forbidden", "Not yours to move")

        registry.lie("PUT", ".*/aliases/production", refuse)
        with pytest.raises(RefusedError):
            await send(registry, board, folder, is_new=True, alias="production")
        registry.lies.clear()

        done = await send(registry, board, folder, is_new=True, alias="production")

        assert (done.version, done.status, done.sent) == ("1.0.1", "ready", 0)
        assert registry.aliases == {(registry.models["bot"], "production"): "1.0.1"}

    async def test_one_file_more_is_another_version(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        await send(registry, board, folder)
        fill(folder, {"notes.txt": b""})

        done = await send(registry, board, folder)

        assert done.version == "1.0.1"

    async def test_a_ready_version_of_the_same_bytes_is_no_work(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        await send(registry, board, folder)

        done = await send(registry, board, folder, version="1.0.0")

        assert (done.status, done.sent) == ("ready", 0)

    async def test_a_ready_version_takes_no_other_bytes(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        await send(registry, board, folder)
        fill(folder, {"config.json": b'{"a": 1}'})

        with pytest.raises(ClientError, match="is ready, so its files never change"):
            await send(registry, board, folder, version="1.0.0")

        assert registry.version("bot", "1.0.0").files == FILES

    async def test_files_of_others_in_the_version_stop_it(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.add("bot", "2.0.0", {"theirs.bin": b"x"}).status = "uploading"

        with pytest.raises(ClientError, match=r"files that the folder has not: theirs\.bin"):
            await send(registry, board, folder, version="2.0.0")


class TestBrokenLine:
    async def test_it_goes_on_where_it_ended(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.cuts = [150_000, 1, 60_000, 199_999]
        registry.put_cuts = [1]

        done = await send(registry, board, folder)

        assert registry.version("bot", done.version).files == FILES
        assert registry.count("POST", "/uploads$") == 1
        received = sum(len(upload.received) for upload in registry.uploads.values())
        assert received == len(LARGE)

    async def test_the_next_push_goes_on_with_the_same_version_and_upload(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.cuts = [150_000, 0, 0, 0]
        with pytest.raises(LineBrokenError, match="Nothing came through in 3 tries"):
            await send(registry, board, folder, failures=3)
        there = sum(len(upload.received) for upload in registry.uploads.values())
        assert 0 < there < len(LARGE)
        registry.asked.clear()
        registry.cuts = []

        done = await send(registry, board, folder)

        assert (done.version, done.sent) == ("1.0.0", 1)
        assert registry.version("bot", "1.0.0").files == FILES
        assert registry.count("POST", "/uploads$") == 0
        assert registry.sent_bytes() == len(LARGE) - there

    async def test_a_pause_is_told(
        self, registry: FakeRegistry, board: Board, folder: Path, said: io.StringIO
    ) -> None:
        registry.cuts = [0]

        await send(registry, board, folder)

        assert "weights/model.safetensors: the connection broke" in said.getvalue()
        assert "trying again in" in said.getvalue()

    async def test_a_line_that_takes_nothing_is_broken(
        self, registry: FakeRegistry, board: Board, folder: Path, said: io.StringIO
    ) -> None:
        # More than the system takes in for a server that does not read.
        large = fill(folder, {"weights/model.safetensors": bytes(16_000_000)})
        given_up = asyncio.Event()

        async def stall(request: web.Request) -> web.StreamResponse:
            await given_up.wait()
            return web.Response(status=500)

        async def let_go(request: web.Request) -> web.StreamResponse:
            registry.lies.clear()
            given_up.set()
            return web.Response(headers={"Upload-Offset": "0"})

        registry.lie("PATCH", "/api/v1/uploads/.*", stall)
        registry.lie("HEAD", "/api/v1/uploads/.*", let_go)
        pace = UploadPace(small_bytes=1_000, stretch_bytes=20_000_000, stall_seconds=0.2)

        done = await send(registry, board, large, pace=pace)

        assert (done.status, done.sent) == ("ready", 2)
        assert "the line took nothing for too long" in said.getvalue()

    async def test_a_forgotten_upload_is_begun_anew(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.cuts = [150_000, 0, 0]
        with pytest.raises(LineBrokenError):
            await send(registry, board, folder, failures=2)
        registry.uploads.clear()
        registry.cuts = []

        await send(registry, board, folder)

        assert registry.version("bot", "1.0.0").files == FILES

    async def test_an_upload_of_other_bytes_is_ended(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        registry.cuts = [150_000, 0, 0]
        with pytest.raises(LineBrokenError):
            await send(registry, board, folder, failures=2)
        registry.cuts = []
        changed = fill(folder, {"weights/model.safetensors": LARGE[::-1]})

        await send(registry, board, changed)

        assert registry.count("DELETE", "/uploads/") == 1
        assert registry.version("bot", "1.0.0").files["weights/model.safetensors"] == LARGE[::-1]

    async def test_what_the_server_says_to_wait_is_waited(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        answers = iter([problem(503, "too-many-transfers", "Busy", **{"Retry-After": "0"})])

        async def busy_once(request: web.Request) -> web.StreamResponse:
            answer = next(answers, None)
            return answer or web.json_response({"items": [], "next_cursor": None})

        registry.lie("GET", "/api/v1/models", busy_once)

        assert (await send(registry, board, folder)).status == "ready"

    async def test_hours_are_not_waited(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async def spent(request: web.Request) -> web.StreamResponse:
            return problem(429, "quota-exceeded", "Spent", **{"Retry-After": "86400"})

        registry.lie("GET", "/api/v1/models", spent)

        with pytest.raises(RefusedError, match=r"Spent, it says\. \[quota-exceeded\]"):
            await send(registry, board, folder)

        assert len(registry.asked) == 1


class TestRefusals:
    async def test_a_refusal_names_the_file_and_the_reason(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async def refuse(request: web.Request) -> web.StreamResponse:
            return problem(415, "pickle-refused", "Pickle files are not accepted")

        registry.lie("PUT", ".*/config.json", refuse)

        with pytest.raises(RefusedError) as caught:
            await send(registry, board, folder)

        assert caught.value.message == (
            "config.json was refused. Pickle files are not accepted: Pickle files are not "
            "accepted, it says. [pickle-refused]"
        )

    async def test_a_check_that_fails_is_told(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async def failed(request: web.Request) -> web.StreamResponse:
            detail = "The header names more bytes than there are."
            said = {"state": "failed", "problem": {"code": "lying-header", "detail": detail}}
            return web.json_response(said)

        registry.lie("GET", "/api/v1/uploads/.*", failed)

        with pytest.raises(RefusedError, match=r"model\.safetensors was refused\. The header"):
            await send(registry, board, folder)

    async def test_an_upload_left_behind_is_told_and_the_rest_stays(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async def under_way(request: web.Request) -> web.StreamResponse:
            return problem(409, "uploads-under-way", "Files are still being uploaded")

        registry.lie("POST", ".*/transition", under_way)
        with pytest.raises(ClientError, match="ends by itself within a day"):
            await send(registry, board, folder)
        registry.lies.clear()

        done = await send(registry, board, folder)

        assert (done.version, done.status, done.sent) == ("1.0.0", "ready", 0)

    async def test_a_key_that_is_no_good_is_told(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        with pytest.raises(RefusedError, match="The key is not accepted"):
            await send(registry, board, folder, key="another")

    async def test_nothing_there_is_told_at_once(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        # A port that answers no more.
        async with serving_registry() as gone:
            registry.port = gone.port

        with pytest.raises(ClientError, match="Is the platform up"):
            await send(registry, board, folder)


class TestHostileServer:
    async def test_a_redirect_is_not_followed(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async with serving_registry() as thief:

            async def send_on(request: web.Request) -> web.StreamResponse:
                raise web.HTTPTemporaryRedirect(f"{thief.url}{request.path}")

            registry.lie("GET", "/api/v1/models", send_on)
            with pytest.raises(ClientError, match="The key goes to no other address"):
                await send(registry, board, folder)

            assert thief.asked == []

    async def test_an_upload_on_another_server_is_not_gone_to(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async with serving_registry() as thief:

            async def lead_away(request: web.Request) -> web.StreamResponse:
                return web.Response(status=201, headers={"Location": f"{thief.url}/take"})

            registry.lie("POST", "/api/v1/uploads", lead_away)
            with pytest.raises(StrangeAnswerError, match="another server"):
                await send(registry, board, folder)

            assert thief.asked == []

    @pytest.mark.parametrize(
        "answer",
        [
            {"items": [{"id": "1", "name": "bot"}], "next_cursor": None},
            {"items": [], "next_cursor": "again"},
            {"items": {}},
            [],
        ],
    )
    async def test_answers_that_make_no_sense_end_it(
        self, registry: FakeRegistry, board: Board, folder: Path, answer: object
    ) -> None:
        async def lie(request: web.Request) -> web.StreamResponse:
            return web.json_response(answer)

        registry.lie("GET", "/api/v1/models", lie)

        with pytest.raises(StrangeAnswerError):
            await send(registry, board, folder)

    async def test_an_answer_without_end_is_not_read_to_its_end(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async def flood(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            await answer.prepare(request)
            while True:
                await answer.write(b" " * 1_000_000)

        registry.lie("GET", "/api/v1/models", flood)

        with pytest.raises(StrangeAnswerError, match="far too long"):
            await send(registry, board, folder)

    async def test_an_offset_that_does_not_move_ends_it(
        self, registry: FakeRegistry, board: Board, folder: Path
    ) -> None:
        async def take_nothing(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=204, headers={"Upload-Offset": "0"})

        registry.lie("PATCH", "/api/v1/uploads/.*", take_nothing)

        async with asyncio.timeout(20):
            with pytest.raises(LineBrokenError):
                await send(registry, board, folder)
