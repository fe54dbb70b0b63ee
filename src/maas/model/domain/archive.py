"""Inspects a zip archive: what its directory says, and that its entries are where it says.

Nothing is unpacked, here or anywhere else in the platform, but for the first bytes of each entry,
which say whether it is a pickle. Archives are refused for what they would do to whoever unpacks
them after a download. What is compared are announced sizes: an entry that says it is small and is
not is stopped by its own checksum, not by us.
"""

import re
import stat
import zlib
from dataclasses import dataclass
from struct import Struct, pack
from typing import Any, NamedTuple

from maas.model.domain.facts import ArchiveRefusedError, Facts
from maas.model.domain.pickles import (
    ARCHIVE_MAGIC,
    is_named_like_pickle,
    is_named_pickle,
    is_pickle,
)
from maas.model.domain.reading import Reading, Span

EMPTY = b"PK\x05\x06"
"""How an archive begins that has no entries; it ends like that too."""

MAX_ENTRIES = 1_000
MAX_RATIO = 100
HARMLESS_BYTES = 1024 * 1024
"""What unpacks to no more than this harms nobody, however well it was packed."""

MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
MAX_COMMENT_BYTES = 65_535

_END = Struct("<4s4H2LH")
_END64 = Struct("<4sQ2H2L4Q")
_END64_HEAD_BYTES = 12
"""Of that record, what its own length does not count."""

_LOCATOR = Struct("<4sLQL")
_ENTRY = Struct("<4s6H3L5H2L")
_LOCAL = Struct("<4s5H3L2H")
_LOCATOR_MAGIC, _END64_MAGIC, _ENTRY_MAGIC = b"PK\x06\x07", b"PK\x06\x06", b"PK\x01\x02"
_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_ENCRYPTED, _STREAMED, _UTF8 = 0x1, 0x8, 0x800
_IN_64, _IN_64_SHORT = 0xFFFF_FFFF, 0xFFFF
_ZIP64_FIELD = 1
_UNICODE_PATH_FIELD = 0x7075
_USUAL_EXTRA_BYTES = 128
_MAX_DESCRIPTOR_BYTES = 24
_BEGINNING_BYTES = 1024
"""Of an entry, packed: enough for whatever deflate says before it says a byte."""

_AS_IT_IS, _DEFLATED = 0, 8
_STANDARD_INPUT = "-"
# From Python 3.12 on any character names a drive.
_DRIVE = re.compile(r".:", re.DOTALL)


def read_archive(size: int, *, limit_bytes: int) -> Reading[Facts]:
    """Look at every entry; one that is a pickle makes the archive a `pickle`.

    Raises:
        ArchiveRefusedError: too many entries, too much inside, a path or a link that leads out of
            the folder it is unpacked to, or a directory that does not say what is there.
    """
    directory = yield from _find_directory(size)
    if directory.entries > MAX_ENTRIES:
        raise ArchiveRefusedError(f"it has more than {MAX_ENTRIES} entries")
    if directory.size > MAX_DIRECTORY_BYTES:
        raise ArchiveRefusedError("its directory is too long")
    text = b""
    if directory.size:
        text = yield Span(directory.start, directory.start + directory.size)
    entries = _entries(text, directory.entries)
    _check_sizes(entries, size, limit_bytes)
    has_pickle = yield from _check_places(entries, directory.start)
    return Facts(format="pickle" if has_pickle else "zip")


class _Directory(NamedTuple):
    """Where the directory begins, its bytes, and how many entries it says it has."""

    start: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: bytes
    path: str
    method: int
    checksum: int
    packed: int
    unpacked: int
    start: int


def _find_directory(size: int) -> Reading[_Directory]:
    """Find the record at the very end, and the one for large archives if it is there.

    Some readers go by that one whenever it is there, some only where the first has no room for a
    number: so both have to say the same.
    """
    if size < _END.size:
        raise _broken()
    start = max(0, size - _LOCATOR.size - _END.size - MAX_COMMENT_BYTES)
    tail = yield Span(start, size)
    at = tail.rfind(EMPTY)
    if at < 0 or at + _END.size > len(tail):
        raise _broken()
    _, disk, first_disk, here, entries, length, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise ArchiveRefusedError("something follows its end, so that readers differ about it")
    found = _Directory(offset, length, entries)
    end = start + at
    is_large = _IN_64 in {length, offset} or _IN_64_SHORT in {disk, first_disk, here, entries}
    if is_large or tail[max(0, at - _LOCATOR.size) : at].startswith(_LOCATOR_MAGIC):
        found, end = yield from _find_directory64(end)
    if {disk, first_disk} - {0, _IN_64_SHORT} or here != entries:
        raise ArchiveRefusedError("it is one of several parts")
    if (
        entries not in {found.entries, _IN_64_SHORT}
        or length not in {found.size, _IN_64}
        or offset not in {found.start, _IN_64}
    ):
        raise ArchiveRefusedError("it has two directories, so that readers differ about it")
    if found.start + found.size != end:
        raise ArchiveRefusedError("its directory is not where it should be")
    return found


def _find_directory64(end: int) -> Reading[tuple[_Directory, int]]:
    if end < _LOCATOR.size + _END64.size:
        raise _broken()
    locator = yield Span(end - _LOCATOR.size, end)
    magic, disk, start, disks = _LOCATOR.unpack(locator)
    # Some readers look there, whatever the locator says.
    if magic != _LOCATOR_MAGIC or start != end - _LOCATOR.size - _END64.size:
        raise _broken()
    record = yield Span(start, start + _END64.size)
    magic, rest, _, _, this, first, here, entries, length, offset = _END64.unpack(record)
    if magic != _END64_MAGIC or rest != _END64.size - _END64_HEAD_BYTES:
        raise _broken()
    if disk or disks > 1 or this or first or here != entries:
        raise ArchiveRefusedError("it is one of several parts")
    return _Directory(offset, length, entries), start


def _entries(text: bytes, number: int) -> list[_Entry]:
    entries: list[_Entry] = []
    paths: set[str] = set()
    at = 0
    for _ in range(number):
        entry, at = _entry(text, at)
        _check_path(entry.path)
        if entry.path in paths:
            raise ArchiveRefusedError("two of its entries have one path")
        paths.add(entry.path)
        entries.append(entry)
    if at != len(text):
        raise ArchiveRefusedError("its directory has more in it than it says")
    return entries


def _entry(text: bytes, at: int) -> tuple[_Entry, int]:
    if at + _ENTRY.size > len(text):
        raise _broken()
    head = _ENTRY.unpack_from(text, at)
    magic, flags, method, attributes, start = head[0], head[3], head[4], head[15], head[16]
    checksum, packed, unpacked, name_bytes, extra_bytes, comment_bytes, disk = head[7:14]
    at += _ENTRY.size
    name, extra = text[at : at + name_bytes], text[at + name_bytes :][:extra_bytes]
    at += name_bytes + extra_bytes + comment_bytes
    if magic != _ENTRY_MAGIC or at > len(text):
        raise _broken()
    if flags & _ENCRYPTED:
        raise ArchiveRefusedError("an entry is encrypted, so nobody can look at it")
    unpacked, packed, start = _widened(extra, unpacked, packed, start)
    if disk not in {0, _IN_64_SHORT}:
        raise ArchiveRefusedError("it is one of several parts")
    path = _decoded(name, is_utf8=bool(flags & _UTF8))
    _check_kind(path, attributes >> 16)
    entry = _Entry(
        name=name,
        path=path,
        method=method,
        checksum=checksum,
        packed=packed,
        unpacked=unpacked,
        start=start,
    )
    return entry, at


def _widened(extra: bytes, *numbers: int) -> list[int]:
    """Put the numbers in that do not fit into the entry itself: they are in one of its extras."""
    wide: list[int] = []
    at = 0
    while at + 4 <= len(extra):
        kind, length = int.from_bytes(extra[at : at + 2], "little"), extra[at + 2 : at + 4]
        content = extra[at + 4 : at + 4 + int.from_bytes(length, "little")]
        at += 4 + int.from_bytes(length, "little")
        if kind == _ZIP64_FIELD:
            wide = [
                int.from_bytes(content[i : i + 8], "little") for i in range(0, len(content) - 7, 8)
            ]
        elif kind == _UNICODE_PATH_FIELD:
            raise ArchiveRefusedError("an entry has two paths, so that readers differ about it")
    missing = iter(wide)
    result = [next(missing, None) if number == _IN_64 else number for number in numbers]
    if None in result:
        raise _broken()
    return [number for number in result if number is not None]


def _decoded(name: bytes, *, is_utf8: bool) -> str:
    try:
        return name.decode("utf-8" if is_utf8 else "cp437")
    except UnicodeDecodeError:
        raise ArchiveRefusedError("a path in it is not text") from None


def _check_path(path: str) -> None:
    if not path or "\0" in path or "\\" in path or path.startswith("/") or _DRIVE.match(path):
        raise ArchiveRefusedError("a path in it is not relative, or not a path at all")
    if ".." in path.split("/"):
        raise ArchiveRefusedError("a path in it leads out of the folder it is unpacked to")


def _check_kind(path: str, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    # Info-ZIP says of its standard input that it is a pipe, which is what it was read from.
    is_input = kind == stat.S_IFIFO and path == _STANDARD_INPUT
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR} and not is_input:
        raise ArchiveRefusedError("an entry is a link or a device")


def _check_sizes(entries: list[_Entry], size: int, limit_bytes: int) -> None:
    unpacked = sum(entry.unpacked for entry in entries)
    if unpacked > limit_bytes:
        raise ArchiveRefusedError(f"it unpacks to more than {limit_bytes} bytes")
    if any(entry.method == _AS_IT_IS and entry.packed != entry.unpacked for entry in entries):
        raise ArchiveRefusedError("an entry's sizes contradict each other")
    if unpacked > max(HARMLESS_BYTES, MAX_RATIO * size) or any(
        entry.unpacked > max(HARMLESS_BYTES, MAX_RATIO * entry.packed) for entry in entries
    ):
        raise ArchiveRefusedError(f"it unpacks to more than {MAX_RATIO} times its size")


def _check_places(entries: list[_Entry], end: int) -> Reading[bool]:
    """See that each entry is there as the directory says, and that nothing else is there.

    Tell whether one of them is a pickle, as its name or its first bytes say.

    Who reads an archive as a stream sees no directory, and takes whatever looks like an entry.
    """
    reached, between, has_pickle = 0, {b""}, False
    for entry in sorted(entries, key=lambda each: each.start):
        stop = entry.start + _LOCAL.size + len(entry.name)
        gap = entry.start - reached
        if not 0 <= gap <= _MAX_DESCRIPTOR_BYTES or stop > end:
            raise _misplaced()
        text = yield Span(reached, min(stop + _USUAL_EXTRA_BYTES + _BEGINNING_BYTES, end))
        if text[:gap] not in between:
            raise _misplaced()
        local = _LOCAL.unpack_from(text, gap)
        flags, extra_bytes = local[2], local[-1]
        reached = stop + extra_bytes + entry.packed
        if flags & _ENCRYPTED or reached > end:
            raise _misplaced()
        name, rest = text[gap + _LOCAL.size :][: len(entry.name)], text[gap + stop - entry.start :]
        wanted = extra_bytes + min(entry.packed, _BEGINNING_BYTES)
        if len(rest) < wanted:
            rest += yield Span(stop + len(rest), stop + wanted)
        _check_local(entry, local, name, rest[:extra_bytes])
        has_pickle = _is_pickle(entry, rest[extra_bytes:wanted]) or has_pickle
        between = _descriptors(entry) if flags & _STREAMED else {b""}
    if not 0 <= end - reached <= _MAX_DESCRIPTOR_BYTES:
        raise _misplaced()
    last = b"" if end == reached else (yield Span(reached, end))
    if last not in between:
        raise _misplaced()
    return has_pickle


def _is_pickle(entry: _Entry, packed: bytes) -> bool:
    """Tell by an entry's name and beginning; by its name alone if it is packed in a rare way."""
    if is_named_pickle(entry.path):
        return True
    if entry.method == _AS_IT_IS:
        return is_pickle(packed)
    if entry.method == _DEFLATED:
        return is_pickle(_inflated(packed, entry.unpacked))
    return is_named_like_pickle(entry.path)


def _inflated(packed: bytes, unpacked_bytes: int) -> bytes:
    try:
        found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, _BEGINNING_BYTES)
    except zlib.error:
        raise _garbled() from None
    if not found and unpacked_bytes:
        raise _garbled()
    return found


def _check_local(entry: _Entry, local: tuple[Any, ...], name: bytes, extra: bytes) -> None:
    """Hold what is written before an entry's bytes against what the directory says of it."""
    magic, _, flags, method, _, _, checksum, packed, unpacked, name_bytes, _ = local
    unpacked, packed = _widened(extra, unpacked, packed)
    said = (magic, method, name_bytes, name)
    if said != (ARCHIVE_MAGIC, entry.method, len(entry.name), entry.name):
        raise _contradicted()
    # Whoever wrote a stream knew these only at the entry's end.
    unknown = {0} if flags & _STREAMED else set()
    if (
        checksum not in {entry.checksum, *unknown}
        or packed not in {entry.packed, *unknown}
        or unpacked not in {entry.unpacked, *unknown}
    ):
        raise _contradicted()


def _descriptors(entry: _Entry) -> set[bytes]:
    """Write what follows an entry of a stream, in each form there is of it."""
    found = [pack("<L2Q", entry.checksum, entry.packed, entry.unpacked)]
    if max(entry.packed, entry.unpacked) <= _IN_64:
        found.append(pack("<3L", entry.checksum, entry.packed, entry.unpacked))
    return {sign + text for sign in (b"", _DESCRIPTOR_MAGIC) for text in found}


def _misplaced() -> ArchiveRefusedError:
    return ArchiveRefusedError(
        "its entries overlap, are not where they should be, or have something between them"
    )


def _contradicted() -> ArchiveRefusedError:
    return ArchiveRefusedError("its directory does not say what is there")


def _garbled() -> ArchiveRefusedError:
    return ArchiveRefusedError("an entry is not packed as its directory says")


def _broken() -> ArchiveRefusedError:
    return ArchiveRefusedError("its directory is missing or broken")
