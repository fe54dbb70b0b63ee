"""Digests, manifests, and what first bytes say."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.model.domain.blob import Blob, Digest, InvalidDigestError, Part
from maas.model.domain.formats import PickleRefusedError, refusing_pickle
from maas.model.domain.pickles import is_pickle

DIGEST = Digest(bytes(32))


def make_blob(sizes: list[int]) -> Blob:
    parts = tuple(Part(key=str(n), size=size, sha256=DIGEST) for n, size in enumerate(sizes))
    return Blob(sha256=DIGEST, size=sum(sizes), parts=parts)


class TestDigest:
    def test_reads_back_what_it_writes(self) -> None:
        digest = Digest(bytes(range(32)))

        assert Digest.from_hex(str(digest)) == Digest.from_hex(str(digest).upper()) == digest

    @pytest.mark.parametrize("text", ["", "00", "0" * 63, "g" * 64, "0" * 65, " " + "0" * 63])
    def test_refuses_others(self, text: str) -> None:
        with pytest.raises(InvalidDigestError):
            Digest.from_hex(text)

    def test_has_32_bytes(self) -> None:
        with pytest.raises(InvalidDigestError):
            Digest(b"short")


class TestPartsBetween:
    @given(st.lists(st.integers(1, 9), max_size=6), st.data())
    def test_the_pieces_are_the_range(self, sizes: list[int], data: st.DataObject) -> None:
        blob = make_blob(sizes)
        start = data.draw(st.integers(0, blob.size))
        stop = data.draw(st.integers(start, blob.size))
        content = [(key, offset) for key, size in enumerate(sizes) for offset in range(size)]

        pieces = [
            (int(part.key), offset)
            for part, begin, end in blob.parts_between(start, stop)
            for offset in range(begin, end)
        ]

        assert pieces == content[start:stop]

    def test_parts_must_add_up(self) -> None:
        with pytest.raises(ValueError, match="add up"):
            Blob(sha256=DIGEST, size=2, parts=(Part(key="a", size=1, sha256=DIGEST),))


SAFETENSORS_640 = (640).to_bytes(8, "little") + b'{"a":'


class TestIsPickle:
    @pytest.mark.parametrize(
        "head",
        [
            b"\x80\x02}q\x00.",
            b"\x80\x04\x95\x00",
            b"\x80\x05.",
            b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pklFB",
        ],
    )
    def test_knows_pickles(self, head: bytes) -> None:
        assert is_pickle(head)

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"\x80",
            b"GGUF\x03\0",
            SAFETENSORS_640,
            b"PK\x03\x04word/document.xml",
            b"\x80\x01.",
        ],
    )
    def test_lets_others_through(self, head: bytes) -> None:
        assert not is_pickle(head)


class TestRefusingPickle:
    @staticmethod
    async def pass_through(content: bytes, size: int) -> bytes:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), size):
                yield content[start : start + size]

        return b"".join([chunk async for chunk in refusing_pickle(chunks())])

    @pytest.mark.parametrize("size", [1, 1000, 200_000])
    async def test_passes_the_same_bytes_on(self, size: int) -> None:
        content = bytes(70_000) if size > 1 else b"short"

        assert await self.pass_through(content, size) == content

    @pytest.mark.parametrize("size", [1, 200_000])
    async def test_a_pickle_stops_it(self, size: int) -> None:
        with pytest.raises(PickleRefusedError):
            await self.pass_through(b"\x80\x04\x95" + bytes(100), size)

    async def test_an_empty_body_stays_empty(self) -> None:
        assert await self.pass_through(b"", 1) == b""
