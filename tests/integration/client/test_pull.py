"""Versions on their way down, over lines that break, from servers that lie."""

import io
import json
from pathlib import Path

import pytest

from maas.client.board import Board
from maas.client.errors import ClientError, LineBrokenError
from tests.fakes.folders import contents, fill
from tests.fakes.registry import FakeRegistry, digest_of
from tests.integration.client.pulling import FILES, LARGE, fetch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


def ranges(registry: FakeRegistry) -> list[str]:
    return [one.headers["Range"] for one in registry.asked if "Range" in one.headers]


class TestPull:
    @pytest.mark.parametrize("parallel", [1, 4])
    async def test_a_version_comes_byte_for_byte(
        self, registry: FakeRegistry, board: Board, here: Path, parallel: int
    ) -> None:
        odd = {"empty": b"", "a b/50% #1?.txt": b"odd", "重み/模型.bin": b"name"}
        registry.add("bot", "1.0.0", FILES | odd)

        done = await fetch(registry, board, here, parallel=parallel)

        assert contents(here) == FILES | odd
        assert (done.version.version, done.files, done.fetched) == ("1.0.0", 5, 5)
        assert not (here / ".maas").exists()

    async def test_large_files_come_in_stretches_side_by_side(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})

        await fetch(registry, board, here, parallel=3)

        assert sorted(ranges(registry)) == [
            "bytes=0-233332",
            "bytes=233333-466666",
            "bytes=466667-700000",
        ]

    async def test_the_newest_ready_version_is_meant_where_none_is_named(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        for version in ("1.0.0", "1.1.0", "2.0.0"):
            registry.add("bot", version, {"version": version.encode()})
        registry.version("bot", "2.0.0").status = "uploading"

        await fetch(registry, board, here)

        assert contents(here) == {"version": b"1.1.0"}

    @pytest.mark.parametrize("reference", ["acme/bot:7b@production", "acme/bot:7b:1.0.0"])
    async def test_versions_go_by_alias_and_by_name(
        self, registry: FakeRegistry, board: Board, here: Path, reference: str
    ) -> None:
        for version in ("1.0.0", "2.0.0"):
            registry.add("acme/bot:7b", version, {"version": version.encode()})
        registry.aliases[registry.models["acme/bot:7b"], "production"] = "1.0.0"

        await fetch(registry, board, here, reference)

        assert contents(here) == {"version": b"1.0.0"}

    async def test_a_name_of_two_meanings_is_asked_about(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("acme/bot:7b", "1.0.0", FILES)
        registry.add("acme/bot", "7b", FILES)

        with pytest.raises(ClientError, match=r"can mean version 1\.0\.0 of acme/bot:7b, or ver"):
            await fetch(registry, board, here, "acme/bot:7b")

    async def test_the_same_bytes_come_once(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"a": LARGE, "deep/b": LARGE})

        await fetch(registry, board, here)

        assert contents(here) == {"a": LARGE, "deep/b": LARGE}
        assert registry.count("GET", "/files/") == 1

    async def test_what_is_there_stays_and_other_files_are_left_alone(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        fill(here, {"config.json": FILES["config.json"], "notes.txt": b"mine"})

        done = await fetch(registry, board, here)

        assert done.fetched == 1
        assert registry.count("GET", "/files/config") == 0
        assert contents(here) == FILES | {"notes.txt": b"mine"}

    async def test_other_bytes_are_replaced_only_where_that_is_said(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)
        fill(here, {"config.json": b"mine"})

        with pytest.raises(ClientError, match=r"other files .*: config\.json\. --force replaces"):
            await fetch(registry, board, here)
        assert contents(here) == {"config.json": b"mine"}

        await fetch(registry, board, here, is_forced=True)
        assert contents(here) == FILES

    async def test_an_open_version_is_not_pulled(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES).status = "uploading"

        with pytest.raises(ClientError, match="is uploading: its files may still change"):
            await fetch(registry, board, here, "bot:1.0.0")

    async def test_what_is_not_there_is_told_with_what_is(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", FILES)

        with pytest.raises(ClientError, match=r"bot has no version 9\.9\.9; it has 1\.0\.0"):
            await fetch(registry, board, here, "bot:9.9.9")
        with pytest.raises(ClientError, match="no model cat in your tenant that you may read"):
            await fetch(registry, board, here, "cat")

    async def test_a_strangers_model_is_not_taken_for_ones_own(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        tenant = "01935d2e-0000-7000-8000-000000000009"
        foreign = registry.share("acme/bot", tenant=tenant)

        with pytest.raises(ClientError) as refused:
            await fetch(registry, board, here, "acme/bot")
        assert "There is no model acme/bot in your tenant" in refused.value.message
        assert f"{foreign} of tenant {tenant}" in refused.value.message
        assert contents(here) == {}

        await fetch(registry, board, here, foreign)
        assert contents(here) == {"evil": b"evil"}

    async def test_a_name_has_one_spelling(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("acme/é", "1.0.0", FILES)

        await fetch(registry, board, here, "acme/e\u0301")

        assert contents(here) == FILES

    async def test_hidden_names_are_left_out_unless_they_are_wanted(
        self, registry: FakeRegistry, board: Board, here: Path, said: io.StringIO
    ) -> None:
        hidden = {".bashrc": b"evil", ".git/hooks/post-checkout": b"evil", "a/.ssh/key": b"evil"}
        registry.add("bot", "1.0.0", FILES | hidden)

        done = await fetch(registry, board, here)

        assert contents(here) == FILES
        assert done.files == len(FILES)
        assert ".bashrc, .git/hooks/post-checkout, a/.ssh/key  (hidden; --hidden" in said.getvalue()

        await fetch(registry, board, here, with_hidden=True)
        assert contents(here) == FILES | hidden

    async def test_nothing_but_hidden_names_is_told(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {".gitattributes": b"*"})

        with pytest.raises(ClientError, match="no files but hidden ones; --hidden takes them"):
            await fetch(registry, board, here)


class TestBrokenLine:
    @pytest.mark.parametrize("parallel", [1, 4])
    async def test_it_goes_on_where_it_ended(
        self, registry: FakeRegistry, board: Board, here: Path, parallel: int
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [100_000, 1, 0, 50_000]

        await fetch(registry, board, here, parallel=parallel)

        assert contents(here) == {"model.gguf": LARGE}

    async def test_no_byte_comes_twice(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [300_000, 200_000]

        await fetch(registry, board, here)

        assert ranges(registry) == [
            "bytes=0-700000",
            "bytes=300000-700000",
            "bytes=500000-700000",
        ]

    async def test_the_next_pull_goes_on(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [300_000, 0, 0]
        with pytest.raises(LineBrokenError):
            await fetch(registry, board, here, failures=2)
        assert "model.gguf" not in contents(here)
        registry.asked.clear()
        registry.cuts = []

        await fetch(registry, board, here)

        assert ranges(registry) == ["bytes=300000-700000"]
        assert contents(here) == {"model.gguf": LARGE}

    async def test_a_damaged_rest_of_an_earlier_pull_is_fetched_anew(
        self, registry: FakeRegistry, board: Board, here: Path
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        registry.cuts = [300_000, 0, 0]
        with pytest.raises(LineBrokenError):
            await fetch(registry, board, here, failures=2)
        fill(here, {f".maas/{digest_of(LARGE)}.part": b"?" * 300_000})
        registry.cuts = []

        await fetch(registry, board, here)

        assert contents(here) == {"model.gguf": LARGE}

    @pytest.mark.parametrize("journal", ["", "{", "[]", '{"size": 5, "stretches": []}'])
    async def test_a_journal_that_cannot_be_is_not_believed(
        self, registry: FakeRegistry, board: Board, here: Path, journal: str
    ) -> None:
        registry.add("bot", "1.0.0", {"model.gguf": LARGE})
        fill(here, {f".maas/{digest_of(LARGE)}.json": journal.encode()})

        await fetch(registry, board, here)

        assert contents(here) == {"model.gguf": LARGE}


async def test_the_journal_says_what_is_missing(
    registry: FakeRegistry, board: Board, here: Path
) -> None:
    registry.add("bot", "1.0.0", {"model.gguf": LARGE})
    registry.cuts = [300_000, 0, 0]

    with pytest.raises(LineBrokenError):
        await fetch(registry, board, here, failures=2)

    journal = contents(here)[f".maas/{digest_of(LARGE)}.json"]
    assert json.loads(journal) == {"size": 700_001, "stretches": [{"at": 300_000, "stop": 700_001}]}
