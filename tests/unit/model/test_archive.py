"""Zip archives: what is let through, and what would harm whoever unpacks it."""

import io
import stat
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from maas.model.domain.archive import MAX_ENTRIES, read_archive
from maas.model.domain.facts import ArchiveRefusedError, Facts
from maas.model.domain.reading import read
from tests.factories.weights import fetcher, make_zip

LIMIT_BYTES = 64 * 1024 * 1024
SOUND = make_zip({"a/config.json": b"{}" * 50, "a/weights.bin": bytes(range(256)) * 9, "b": b""})
MANY = {str(number): b"" for number in range(MAX_ENTRIES)}


def facts_of(content: bytes, limit_bytes: int = LIMIT_BYTES) -> Facts:
    return read(read_archive(len(content), limit_bytes=limit_bytes), fetcher(content))


def with_entry(old: bytes, new: bytes, content: bytes = SOUND) -> bytes:
    """Change the directory, and leave what is before it as it was."""
    start = content.index(b"PK\x01\x02")
    assert old in content[start:]
    return content[:start] + content[start:].replace(old, new, 1)


def make_large(count: int = 3) -> bytes:
    """Make an archive whose directory is told about by the record for large ones."""
    content = make_zip({str(number): b"x" for number in range(count)})
    end = content[-22:]
    length, offset = struct.unpack_from("<LL", end, 12)
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, offset
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(content) - 22, 1)
    saturated = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    return content[:-22] + record + locator + saturated


class TestTaken:
    @pytest.mark.parametrize(
        "content",
        [
            SOUND,
            make_zip({}),
            make_zip(MANY),
            make_zip({"a": b"x"}, method=zipfile.ZIP_STORED),
            make_zip({"folder/": b""}, mode=stat.S_IFDIR | 0o755),
            make_zip({"模型/权重": b"x"}),
            make_zip({"zeros": bytes(900_000)}),
            make_large(),
        ],
    )
    def test_what_harms_nobody(self, content: bytes) -> None:
        assert facts_of(content) == Facts(format="zip")

    def test_entries_written_as_a_stream(self) -> None:
        class Pipe(io.RawIOBase):
            content = b""

            @override
            def writable(self) -> bool:
                return True

            @override
            def write(self, data: object) -> int:
                self.content += bytes(data)  # type: ignore[call-overload]  # a buffer
                return len(data)  # type: ignore[arg-type]  # a buffer

        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w") as archive:
            archive.writestr("a", b"x" * 100)
            with archive.open("b", "w", force_zip64=True) as entry:
                entry.write(b"y" * 100)

        assert facts_of(pipe.content).format == "zip"

    @pytest.mark.parametrize("name", ["archive/data.pkl", "a.PICKLE"])
    def test_a_pickle_in_it_is_told(self, name: str) -> None:
        assert facts_of(make_zip({"first": b"x", name: b"x"})).format == "pickle"


class TestRefused:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "broken"),
            (b"PK\x03\x04" + bytes(100), "broken"),
            (SOUND[:-1], "broken"),
            (SOUND + b"x", "follows its end"),
            (b"x" + SOUND, "not where it should be"),
            (make_zip({**MANY, "more": b""}), "more than 1000 entries"),
            (make_zip({"zeros": bytes(20_000_000)}), "100 times"),
            (make_zip({str(n): bytes(1_000_000) for n in range(20)}), "100 times"),
            (make_zip({"/etc/passwd": b"x"}), "not relative"),
            (make_zip({"a/../../b": b"x"}), "leads out"),
            (make_zip({"..": b"x"}), "leads out"),
            (make_zip({"a\\..\\b": b"x"}), "not relative"),
            (make_zip({"C:/b": b"x"}), "not relative"),
            (make_zip({"link": b"/etc"}, mode=stat.S_IFLNK | 0o777), "a link"),
            (make_zip({"fifo": b""}, mode=stat.S_IFIFO | 0o777), "a link"),
            (with_entry(b"a/config.json", b"b/config.json"), "does not say what is there"),
            (with_entry(b"a/weights.bin", b"a/config.json"), "one path"),
            (with_entry(b"a/config.json", b"a/config\0json"), "not a path"),
        ],
    )
    def test_with_its_reason(self, content: bytes, reason: str) -> None:
        with pytest.raises(ArchiveRefusedError, match=reason):
            facts_of(content)

    def test_more_than_a_file_may_have(self) -> None:
        with pytest.raises(ArchiveRefusedError, match="more than 100 bytes"):
            facts_of(SOUND, limit_bytes=100)

    def test_what_is_encrypted(self) -> None:
        at = SOUND.index(b"PK\x01\x02") + 8
        content = SOUND[:at] + b"\x01" + SOUND[at + 1 :]

        with pytest.raises(ArchiveRefusedError, match="encrypted"):
            facts_of(content)

    def test_entries_that_share_their_bytes(self) -> None:
        content = make_zip({"a": b"x" * 50, "b": b"y" * 50}, method=zipfile.ZIP_STORED)
        entries = content.index(b"PK\x01\x02")
        second = content.index(b"PK\x01\x02", entries + 1)
        shared = (
            content[:entries]
            + content[entries : entries + 46]
            + b"a"
            + content[entries : entries + 46]
            + b"b"
            + content[second + 47 :]
        )

        with pytest.raises(ArchiveRefusedError, match="overlap"):
            facts_of(shared)

    def test_an_entry_of_no_bytes_that_says_it_is_large(self) -> None:
        content = make_zip({"a": b""}, method=zipfile.ZIP_STORED)
        at = content.index(b"PK\x01\x02") + 24
        content = content[:at] + struct.pack("<L", 2**30) + content[at + 4 :]

        with pytest.raises(ArchiveRefusedError):
            facts_of(content, limit_bytes=2**40)


class TestFuzzed:
    @given(st.data())
    def test_any_change_is_taken_or_refused(self, data: st.DataObject) -> None:
        content = bytearray(SOUND)
        start = content.index(b"PK\x01\x02")
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.one_of(st.integers(start, len(content)), st.integers(0, start)))
            content[at : at + data.draw(st.integers(0, 4))] = data.draw(
                st.one_of(st.binary(max_size=4), st.just(b"\xff" * 4), st.just(b"PK\x05\x06"))
            )

        _take_or_refuse(bytes(content))

    @given(content=st.binary(max_size=200), is_large=st.booleans())
    def test_any_bytes_are_taken_or_refused(self, *, content: bytes, is_large: bool) -> None:
        _take_or_refuse(content + (make_large() if is_large else SOUND)[-98:])

    @given(st.text(alphabet="./\\aC:\0\u202e", max_size=9))
    def test_no_path_gets_out_of_the_folder(self, name: str) -> None:
        if not _take_or_refuse(make_zip({name: b"x"})):
            return

        assert not name.startswith("/")
        assert ".." not in name.replace("\\", "/").split("/")


def _take_or_refuse(content: bytes) -> bool:
    try:
        facts_of(content)
    except ArchiveRefusedError:
        return False
    return True
