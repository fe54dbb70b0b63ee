"""Headers of safetensors files: what they say, and what they may not."""

import json
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from maas.model.domain.facts import Facts, LyingHeaderError
from maas.model.domain.reading import BoundReachedError, read
from maas.model.domain.safetensors import (
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    MAX_NOTES,
    MAX_TENSORS,
    read_safetensors,
)
from tests.factories.weights import WEIGHTS, fetcher, make_safetensors, safetensors_header

SOUND = make_safetensors()
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def facts_of(content: bytes) -> Facts:
    return read(read_safetensors(len(content)), fetcher(content))


def is_taken(content: bytes) -> bool:
    try:
        facts_of(content)
    except (LyingHeaderError, BoundReachedError):
        return False
    return True


def is_loaded(content: bytes) -> bool:
    """Ask the reference implementation."""
    return why_not_loaded(content) is None


def why_not_loaded(content: bytes) -> str | None:
    try:
        deserialize(content)  # type: ignore[no-untyped-call]  # has no types
    except SafetensorError as exc:
        return str(exc)
    return None


class TestFacts:
    def test_counts_what_the_header_lists(self) -> None:
        assert facts_of(SOUND) == Facts(
            format="safetensors", parameters=132, dtype="F16", tensor_count=2
        )

    def test_a_file_of_no_tensors_is_one(self) -> None:
        assert facts_of(make_safetensors({}, header={})).tensor_count == 0

    def test_reads_real_weights(self) -> None:
        # Looked up and not imported: that would load the weights.
        package = find_spec("wordllama")
        assert package is not None
        assert package.origin is not None
        path = Path(package.origin).parent / "weights" / "l2_supercat_256.safetensors"
        content = path.read_bytes()

        facts = facts_of(content)

        assert facts == Facts(
            format="safetensors", parameters=32_000 * 256, dtype="F16", tensor_count=1
        )

    def test_knows_nothing_of_a_newer_type(self) -> None:
        header = {"a": ENTRY | {"dtype": "F3_E1M1", "shape": [9]}}

        assert facts_of(make_safetensors({}, header=header, data=bytes(4))).dtype == "F3_E1M1"


class TestRefusals:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            bytes(7),
            bytes(8),
            (2**63).to_bytes(8, "little") + bytes(100),
            (100_000_001).to_bytes(8, "little"),
            make_safetensors(data=bytes(271)),
            make_safetensors(data=bytes(273)),
            make_safetensors(header=b"[]"),
            make_safetensors(header=b'{"a":'),
            make_safetensors(header=b"[" * 100_000),
            make_safetensors(header=b'{"a":' * 100_000),
            make_safetensors({}, header={"a": {**ENTRY, "more": 1}}, data=bytes(4)),
            make_safetensors({}, header={"a": {"dtype": "F32", "shape": [1]}}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "shape": [2]}}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "shape": [2**62, 16]}}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "shape": [-1]}}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "shape": [1.0]}}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "shape": [1] * 300}}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "data_offsets": [4, 0]}}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "data_offsets": [1, 5]}}, data=bytes(5)),
            make_safetensors({}, header={"a": ENTRY, "b": ENTRY}, data=bytes(4)),
            make_safetensors({}, header={"a": {**ENTRY, "data_offsets": [0, 10**30]}}),
            make_safetensors(header=json.dumps(safetensors_header(WEIGHTS)).encode() + b"x"),
            make_safetensors({}, header=b'{"\xff":{}}'),
        ],
    )
    def test_a_header_that_lies(self, content: bytes) -> None:
        with pytest.raises(LyingHeaderError):
            facts_of(content)

    def test_two_entries_of_one_name_however_it_is_spelt(self) -> None:
        entry = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})

        with pytest.raises(LyingHeaderError, match="one name"):
            facts_of(make_safetensors({}, header=f'{{"a":{entry},"\\u0061":{entry}}}'.encode()))

    def test_a_longer_header_is_not_read(self) -> None:
        size = MAX_HEADER_BYTES + 1

        with pytest.raises(BoundReachedError):
            read(read_safetensors(size + 8), lambda _start, _stop: size.to_bytes(8, "little"))

    def test_more_tensors_are_not_read(self) -> None:
        entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
        names = ",".join(f'"{number}":{entry}' for number in range(MAX_TENSORS + 1))

        with pytest.raises(BoundReachedError):
            facts_of(make_safetensors({}, header=f"{{{names}}}".encode()))

    @pytest.mark.parametrize("letter", [b"a", b"\\n", b"\\u0041"])
    def test_a_longer_name_is_not_read(self, letter: bytes) -> None:
        name = letter * (MAX_NAME_BYTES // len(letter) + 1)

        with pytest.raises(BoundReachedError):
            facts_of(make_safetensors({}, header=b'{"' + name + b'":{}}'))

    @pytest.mark.parametrize("letter", [b"a", b"\\n", b"\\u0041", b"a\\n"])
    def test_a_note_may_be_long(self, letter: bytes) -> None:
        header = b'{"__metadata__":{"a":"' + letter * 100_000 + b'"}}'

        assert facts_of(make_safetensors({}, header=header)).tensor_count == 0

    @pytest.mark.parametrize(("count", "is_read"), [(MAX_NOTES, True), (MAX_NOTES + 1, False)])
    def test_more_notes_are_not_read(self, *, count: int, is_read: bool) -> None:
        header = {"__metadata__": {str(number): "" for number in range(count)}}

        assert is_taken(make_safetensors({}, header=header)) is is_read


HOSTILE = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b",", b":", b"0", b"-1", b"1e9", b"\\u00", b"\xff", b" ", b"\0"]
)


class TestFuzzed:
    @given(st.data())
    def test_what_it_takes_the_reference_takes_and_no_more(self, data: st.DataObject) -> None:
        content = bytearray(SOUND)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(content) - 1))
            width = data.draw(st.integers(0, 3))
            content[at : at + width] = data.draw(st.one_of(st.binary(max_size=3), HOSTILE))
            if not content:
                return

        # What matters is that nothing is taken here which nobody can load. A type that the
        # reference does not know may be one of tomorrow's.
        problem = why_not_loaded(bytes(content))
        assert problem is None or "unknown variant" in problem or not is_taken(bytes(content))

    @given(
        tensors=st.dictionaries(
            st.text(min_size=1, max_size=9).filter(lambda name: name != "__metadata__"),
            st.tuples(
                st.sampled_from(["F32", "BF16", "U8", "I64"]),
                st.lists(st.integers(0, 5), max_size=4),
            ),
            max_size=6,
        ),
        is_ascii=st.booleans(),
    )
    def test_takes_all_that_is_sound(
        self, *, tensors: dict[str, tuple[str, list[int]]], is_ascii: bool
    ) -> None:
        header = json.dumps(safetensors_header(tensors), ensure_ascii=is_ascii, indent=1)
        content = make_safetensors(tensors, header=header.encode(errors="replace") + b"  ")

        assert is_taken(content) == is_loaded(content)

    @given(content=st.binary(max_size=300), is_prefixed=st.booleans())
    @example(content=b"", is_prefixed=True)
    def test_any_bytes_are_read_or_refused(self, *, content: bytes, is_prefixed: bool) -> None:
        is_taken(len(content).to_bytes(8, "little") + content if is_prefixed else content)

    @pytest.mark.parametrize(
        "text",
        [
            b"[" * 2**18,
            b'{"a":[' + b"[]," * 2**17,
            b'{"' + b"a" * 2**18 + b'":1}',
            b'{"__metadata__":{' + b'"a":"b",' * 2**15 + b'"a":"b"}}',
            b'{"__metadata__":{"a":"' + b"\\n" * 2**17,
            b"{" + b" " * 2**18,
        ],
    )
    def test_memory_stays_near_the_size_of_the_header(self, text: bytes) -> None:
        content = make_safetensors({}, header=text)
        tracemalloc.start()
        try:
            is_taken(content)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 4 * len(content)
