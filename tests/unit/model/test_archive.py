"""Zip archives: what is let through, and what would harm whoever unpacks it."""

import io
import stat
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from maas.model.domain.archive import MAX_ENTRIES, read_archive
from maas.model.domain.facts import ArchiveRefusedError, Facts
from maas.model.domain.reading import read
from tests.factories.weights import fetcher, make_safetensors, make_zip

LIMIT_BYTES = 64 * 1024 * 1024
SOUND = make_zip({"a/config.json": b"{}" * 50, "a/weights.bin": bytes(range(256)) * 9, "b": b""})
MANY = {str(number): b"" for number in range(MAX_ENTRIES)}
TYPED = bytes.fromhex(
    "504b03042d0000000800d172765d34cb2b26ffffffffffffffff010014002d01001000230000000000000011"
    "00000000000000cb48cdc9c95728c9482d4a55c8c0ce0600504b01021e032d0000000800d172765d34cb2b26"
    "11000000230000000100000000000000010000008011000000002d504b06062c000000000000001e032d0000"
    "00000000000000010000000000000001000000000000002f000000000000004400000000000000504b060700"
    "000000730000000000000001000000504b050600000000010001002f000000440000000000"
)
"""What Info-ZIP 3.0 made of what was piped into it."""

PIPED = bytes.fromhex(
    "504b03042d00080008002273765d00000000ffffffffffffffff010014002d01001000000000000000000000"
    "00000000000000cb48cdc9c90700504b070886a6103607000000000000000500000000000000504b01021e03"
    "2d00080008002273765d86a6103607000000050000000100000000000000010000008011000000002d504b05"
    "0600000000010001002f000000520000000000"
)
"""The same where what it made went into a pipe as well."""

PICKLED = b"\x80\x04\x95" + bytes(50)
PACKINGS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


def facts_of(content: bytes, limit_bytes: int = LIMIT_BYTES) -> Facts:
    return read(read_archive(len(content), limit_bytes=limit_bytes), fetcher(content))


def with_entry(old: bytes, new: bytes, content: bytes = SOUND) -> bytes:
    """Change the directory, and leave what is before it as it was."""
    start = content.index(b"PK\x01\x02")
    assert old in content[start:]
    return content[:start] + content[start:].replace(old, new, 1)


def make_large(count: int = 3, *, is_full: bool = True) -> bytes:
    """Make an archive whose directory is told about by the record for large ones.

    Without `is_full` the record at the end tells it as well, as PyTorch writes it.
    """
    content = make_zip({str(number): b"x" for number in range(count)})
    length, offset = struct.unpack_from("<LL", content, len(content) - 10)
    record = end64(count, length, offset)
    numbers = (
        (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) if is_full else (count, count, length, offset)
    )
    return content[:-22] + record + end(*numbers)


def end64(
    count: int, length: int, offset: int, *, more: bytes = b"", at: int | None = None
) -> bytes:
    """Write the record for large archives, and what says where it is."""
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44 + len(more), 45, 45, 0, 0, count, count, length, offset
    )
    at = offset + length if at is None else at
    return record + more + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)


def end(*numbers: int, comment: int = 0) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *numbers, comment) + bytes(comment)


def local(
    name: bytes, data: bytes, *, flags: int = 0, extra: bytes = b"", known: bool = True
) -> bytes:
    """Write an entry as it stands before the directory."""
    sizes = (zlib.crc32(data), len(data), len(data)) if known else (0, 0, 0)
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, 0, 0, 0, *sizes, len(name), len(extra))
    return head + name + extra + data


def listed(name: bytes, data: bytes, at: int, *, comment: bytes = b"") -> bytes:
    """Write an entry as it stands in the directory."""
    sizes = (zlib.crc32(data), len(data), len(data))
    lengths = (len(name), 0, len(comment), 0, 0, 0, at)
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, *sizes, *lengths) + (
        name + comment
    )


def with_directory(content: bytes, *entries: bytes, comment: int = 0) -> bytes:
    text = b"".join(entries)
    numbers = (len(entries), len(entries), len(text), len(content))
    return content + text + end(*numbers, comment=comment)


def with_hidden_directory(comment: int = 0) -> bytes:
    """Hide a directory in a comment; only whoever looks for the record for large ones finds it."""
    good = local(b"a", b"x")
    content = good + local(b"../b", b"y")
    hidden, at = listed(b"../b", b"y", len(good)), len(content) + len(listed(b"a", b"x", 0))
    note = hidden + end64(1, len(hidden), at)
    return with_directory(content, listed(b"a", b"x", 0, comment=note), comment=comment)


def descriptor(data: bytes, *, code: str = "L", sign: bytes = b"PK\7\x08") -> bytes:
    return sign + struct.pack(f"<L2{code}", zlib.crc32(data), len(data), len(data))


def streamed(after: bytes, *, flags: int = 8, extra: bytes = b"") -> bytes:
    """Make two entries of a stream, with this behind the first one."""
    first = local(b"a", b"x", flags=flags, extra=extra, known=not flags) + after
    content = first + local(b"b", b"y", flags=8, known=False) + descriptor(b"y")
    return with_directory(content, listed(b"a", b"x", 0), listed(b"b", b"y", len(first)))


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
            make_large(is_full=False),
            with_directory(local(b"a", b"x"), listed(b"a", b"x", 0), comment=0xFFFF),
            with_directory(local(b"a", b"x", extra=bytes(900)), listed(b"a", b"x", 0)),
            TYPED,
            PIPED,
            streamed(descriptor(b"x")),
            streamed(descriptor(b"x", code="Q")),
            streamed(descriptor(b"x", sign=b"")),
            streamed(descriptor(b"x", code="Q", sign=b""), extra=bytes(63)),
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

    def test_entries_with_room_for_large_ones(self) -> None:
        room = io.BytesIO()
        with zipfile.ZipFile(room, "w") as archive, archive.open("a", "w", force_zip64=True) as it:
            it.write(b"y" * 100)

        assert facts_of(room.getvalue()).format == "zip"


class TestPickles:
    @pytest.mark.parametrize("name", ["archive/data.pkl", "a.PICKLE", "forest.joblib"])
    def test_are_told_by_their_names(self, name: str) -> None:
        assert facts_of(make_zip({"first": b"x", name: b"x"})).format == "pickle"

    @pytest.mark.parametrize("method", PACKINGS)
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "a/model.pt", "notes.txt"])
    def test_are_told_by_how_they_begin(self, *, name: str, method: int) -> None:
        content = make_zip({"first": b"x", name: PICKLED, "last": b"y"}, method=method)

        assert facts_of(content).format == "pickle"

    @pytest.mark.parametrize("method", PACKINGS)
    def test_are_told_in_archives_inside(self, method: int) -> None:
        inside = make_zip({"archive/data.pkl": PICKLED}, method=zipfile.ZIP_STORED)

        assert facts_of(make_zip({"model.pt": inside}, method=method)).format == "pickle"

    def test_are_told_after_however_much_else_is_said(self) -> None:
        content = local(b"a", PICKLED, extra=bytes(5_000))

        assert facts_of(with_directory(content, listed(b"a", PICKLED, 0))).format == "pickle"

    @pytest.mark.parametrize(("name", "told"), [("weights.pth", "pickle"), ("readme", "zip")])
    def test_are_told_by_likely_names_where_nobody_looks(self, name: str, told: str) -> None:
        assert facts_of(make_zip({name: b"x" * 50}, method=zipfile.ZIP_BZIP2)).format == told

    @pytest.mark.parametrize("method", PACKINGS)
    @pytest.mark.parametrize("content", [b"x" + PICKLED, b"", make_safetensors(), b"\x80"])
    def test_are_not_seen_where_there_is_none(self, *, content: bytes, method: int) -> None:
        assert facts_of(make_zip({"model.pt": content}, method=method)).format == "zip"

    @pytest.mark.parametrize("packed", [b"\xff" * 70, b"\x00\x00\x00\xff\xff" * 300, b"\x03\x00"])
    def test_are_not_hidden_behind_what_is_no_entry(self, packed: bytes) -> None:
        content = make_zip({"model.pt": bytes(range(256)) * 9}, method=zipfile.ZIP_DEFLATED)
        entry = content.index(b"PK\x01\x02")
        sizes = struct.pack("<L", len(packed))
        head = content[:18] + sizes + content[22 : 30 + len("model.pt")]
        listed_ = content[entry : entry + 20] + sizes + content[entry + 24 : -22]
        made = head + packed

        with pytest.raises(ArchiveRefusedError, match="not packed as"):
            facts_of(with_directory(made, listed_))


class TestKinds:
    @pytest.mark.parametrize("name", ["pipe", "a/-"])
    def test_only_what_was_piped_in_is_a_pipe(self, name: str) -> None:
        with pytest.raises(ArchiveRefusedError, match="a link or a device"):
            facts_of(make_zip({name: b"x"}, mode=stat.S_IFIFO | 0o600))

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFSOCK])
    def test_what_was_piped_in_is_nothing_else(self, kind: int) -> None:
        with pytest.raises(ArchiveRefusedError, match="a link or a device"):
            facts_of(make_zip({"-": b"/etc"}, mode=kind | 0o600))


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
            (make_zip({"::/b": b"x"}), "not relative"),
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

    @pytest.mark.parametrize("comment", [0, 0xFFFF])
    def test_a_directory_that_not_all_readers_find(self, comment: int) -> None:
        content = with_hidden_directory(comment)

        assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["../b"]
        with pytest.raises(ArchiveRefusedError):
            facts_of(content)

    def test_a_record_that_not_all_readers_find(self) -> None:
        content = local(b"a", b"x") + local(b"b", b"y")
        text = listed(b"a", b"x", 0) + listed(b"b", b"y", 32)
        hidden = end64(1, len(text), len(content))[:56]
        record = end64(2, len(text), len(content), more=hidden)
        full = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)

        with pytest.raises(ArchiveRefusedError):
            facts_of(content + text + record + end(*full))

    @pytest.mark.parametrize("field", range(4))
    def test_two_records_that_say_different_things(self, field: int) -> None:
        content = make_large(is_full=False)
        numbers = list(struct.unpack_from("<2H2L", content, len(content) - 14))
        numbers[field] += 1

        with pytest.raises(ArchiveRefusedError):
            facts_of(content[:-22] + end(*numbers))

    @pytest.mark.parametrize(
        "content",
        [
            with_directory(local(b"../b", b"y") + local(b"a", b"x"), listed(b"a", b"x", 35)),
            with_directory(local(b"a", b"x") + local(b"../b", b"y"), listed(b"a", b"x", 0)),
            with_directory(local(b"a", b"x") + b"P", listed(b"a", b"x", 0)),
            streamed(local(b"../b", b"")),
            streamed(b""),
            streamed(descriptor(b"x") + b"P"),
            streamed(descriptor(b"y")),
            streamed(descriptor(b"x"), flags=0),
            streamed(descriptor(b"x"), extra=b"up\x09\0\1\0\0\0\0../b"),
            with_directory(local(b"a", b"x", flags=8, known=False), listed(b"a", b"x", 0)),
            with_directory(local(b"a", b"x", extra=bytes(900))[:300], listed(b"a", b"x", 0)),
        ],
    )
    def test_what_readers_of_streams_would_take_otherwise(self, content: bytes) -> None:
        with pytest.raises(ArchiveRefusedError):
            facts_of(content)

    @pytest.mark.parametrize("at", [14, 18, 22])
    @pytest.mark.parametrize("flags", [0, 8])
    def test_an_entry_that_is_not_what_the_directory_says(self, *, at: int, flags: int) -> None:
        after = descriptor(b"x") if flags else b""
        content = bytearray(streamed(after, flags=flags))
        content[at] ^= 0x55

        facts_of(streamed(after, flags=flags))
        with pytest.raises(ArchiveRefusedError, match="does not say what is there"):
            facts_of(bytes(content))

    def test_an_entry_of_no_bytes_that_says_it_is_large(self) -> None:
        content = make_zip({"a": b""}, method=zipfile.ZIP_STORED)
        at = content.index(b"PK\x01\x02") + 24
        content = content[:at] + struct.pack("<L", 2**30) + content[at + 4 :]

        with pytest.raises(ArchiveRefusedError):
            facts_of(content, limit_bytes=2**40)


class TestFuzzed:
    @given(st.data())
    def test_any_change_is_taken_or_refused(self, data: st.DataObject) -> None:
        content = bytearray(data.draw(st.sampled_from([SOUND, TYPED, PIPED])))
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
        # What makes the archive ends names at a NUL; the reader is shown those as bytes, above.
        name = name.partition("\0")[0]
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
