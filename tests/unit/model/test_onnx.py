"""ONNX files: what is counted in them, beside what the library finds; and what is refused."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
    numpy_helper,
)

from maas.model.domain.facts import Facts, LyingHeaderError
from maas.model.domain.onnx import (
    MAX_DEPTH,
    MAX_FIELDS,
    MAX_FILE_BYTES,
    MAX_LOCATION_BYTES,
    MAX_READ_BYTES,
    read_onnx,
)
from maas.model.domain.reading import BoundReachedError, read
from tests.factories.weights import fetcher

REAL = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))


def make_model(*weights: TensorProto) -> ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], doc_string="n" * 5_000)
    end = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([node], "g", [end], [end], initializer=weights)
    return helper.make_model(graph)


def weight(kind: type[np.generic], *shape: int, name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.zeros(shape, dtype=kind), name)


SOUND = make_model(weight(np.float16, 4, 3), weight(np.float32, 2)).SerializeToString()


def elsewhere(location: str) -> TensorProto:
    """Make a weight whose bytes are in another file."""
    tensor = TensorProto(name="w", dims=[2], data_type=1, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def make_graph(
    *nodes: NodeProto, weights: Sequence[TensorProto] = (), sparse: Sequence[SparseTensorProto] = ()
) -> GraphProto:
    return helper.make_graph(nodes, "g", [], [], initializer=weights, sparse_initializer=sparse)


def make_sparse(values: TensorProto) -> SparseTensorProto:
    # The library's own maker holds the tensors against each other.
    return SparseTensorProto(values=values, indices=weight(np.int64, 2), dims=[4])


def in_node(value: object) -> ModelProto:
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.append(helper.make_attribute("value", value))
    return helper.make_model(make_graph(node))


def in_function(tensor: TensorProto) -> ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    function = helper.make_function("d", "f", [], ["c"], [node], [])
    return helper.make_model(make_graph(), functions=[function])


def in_default(tensor: TensorProto) -> ModelProto:
    default = helper.make_attribute("value", tensor)
    function = helper.make_function("d", "f", [], [], [], [], attribute_protos=[default])
    return helper.make_model(make_graph(), functions=[function])


def in_training(tensor: TensorProto) -> ModelProto:
    model = helper.make_model(make_graph())
    model.training_info.add(algorithm=make_graph(weights=[tensor]))
    return model


PLACES: Mapping[str, Callable[[TensorProto], ModelProto]] = {
    "a node": in_node,
    "tensors of a node": lambda tensor: in_node([tensor]),
    "a graph of a node": lambda tensor: in_node(make_graph(weights=[tensor])),
    "graphs of a node": lambda tensor: in_node([make_graph(weights=[tensor])]),
    "a node of a graph of a node": lambda tensor: in_node(in_node(tensor).graph),
    "a sparse value of a node": lambda tensor: in_node(make_sparse(tensor)),
    "a sparse weight": lambda tensor: helper.make_model(make_graph(sparse=[make_sparse(tensor)])),
    "a function": in_function,
    "a default of a function": in_default,
    "training": in_training,
}
OUTSIDE = [
    *("/etc/passwd", "../a", "a/../../b", "..", "a/..", "\\\\host\\a", "..\\a", "a\\..\\..\\b"),
    *("C:/a", "c:a", "::", "1:/a", "a\0b", "x" * (MAX_LOCATION_BYTES + 1)),
]
KEY = b"\x0a\x08location"
CHANGED = [SOUND, *(make(elsewhere("beside")).SerializeToString() for make in PLACES.values())]


def facts_of(content: bytes, fetched: list[tuple[int, int]] | None = None) -> Facts:
    return read(read_onnx(len(content)), fetcher(content, fetched))


class TestFacts:
    def test_counts_the_weights(self) -> None:
        assert facts_of(SOUND) == Facts(format="onnx", parameters=14, dtype="F16", tensor_count=2)

    def test_weights_in_another_file_count(self) -> None:
        outside = TensorProto(
            name="w", dims=[1000, 1000], data_type=1, data_location=TensorProto.EXTERNAL
        )

        assert facts_of(make_model(outside).SerializeToString()).parameters == 1_000_000

    def test_small_whole_numbers_are_quantised(self) -> None:
        content = make_model(weight(np.int8, 64)).SerializeToString()

        assert (facts_of(content).dtype, facts_of(content).quantisation) == ("I8", "INT8")

    def test_weights_written_as_numbers_count(self) -> None:
        plain = helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [0.0] * 4)

        assert facts_of(make_model(plain).SerializeToString()).parameters == 4

    def test_no_weight_is_fetched(self) -> None:
        content = make_model(weight(np.float32, 1024, 1024)).SerializeToString()
        fetched: list[tuple[int, int]] = []

        facts_of(content, fetched)

        assert sum(stop - start for start, stop in fetched) < 64 * 1024

    def test_counts_what_the_library_counts_in_its_own_files(self) -> None:
        counted = 0
        for path in REAL:
            model = onnx.load(path, load_external_data=False)
            weights = list(model.graph.initializer)

            facts = facts_of(path.read_bytes())

            assert facts.tensor_count == len(weights), path
            assert facts.parameters == sum(
                int(np.prod(each.dims, dtype=np.int64)) for each in weights
            ), path
            counted += len(weights)
        assert len(REAL) > 100
        assert counted > 100


class TestRefusals:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x08",
            b"\x08\x08",
            b"\x3a\x00",
            b"\x08\x08\x3a\x00\x3a\x00",
            SOUND[:-1],
            SOUND + b"\x00",
            SOUND + b"\x0b",
            b"\xff" * 100,
            b"\x08" + b"\xff" * 11,
            make_model(
                TensorProto(name="w", dims=[3], data_type=1, raw_data=bytes(8))
            ).SerializeToString(),
            make_model(TensorProto(name="w", dims=[-1], data_type=1)).SerializeToString(),
            make_model(TensorProto(name="w", dims=[2**62, 4], data_type=1)).SerializeToString(),
            make_model(TensorProto(name="w", dims=[1] * 65, data_type=1)).SerializeToString(),
        ],
    )
    def test_what_is_no_model(self, content: bytes) -> None:
        with pytest.raises(LyingHeaderError):
            facts_of(content)

    def test_nothing_larger_than_protobuf_can_be(self) -> None:
        with pytest.raises(LyingHeaderError):
            read(read_onnx(MAX_FILE_BYTES + 1), fetcher(b""))

    def test_graphs_of_graphs_are_stepped_over(self) -> None:
        inner = SOUND
        for _ in range(200):
            inner = b"\x3a" + _varint(len(inner)) + inner

        assert facts_of(b"\x08\x08" + inner).tensor_count == 0

    def test_more_fields_than_are_read(self) -> None:
        with pytest.raises(BoundReachedError):
            facts_of(b"\x08\x08" * (MAX_FIELDS + 1))

    def test_no_more_is_fetched_than_the_bound(self) -> None:
        # Messages of 64 KiB each, of which only the heads are wanted.
        unit = b"\x12" + _varint(65_532) + bytes(65_532)
        fetched: list[int] = []

        def fetch(start: int, stop: int) -> bytes:
            fetched.append(stop - start)
            begin = start % len(unit)
            return (unit * ((stop - start) // len(unit) + 2))[begin : begin + stop - start]

        with pytest.raises((BoundReachedError, LyingHeaderError)):
            read(read_onnx(MAX_FILE_BYTES - MAX_FILE_BYTES % len(unit)), fetch)

        assert sum(fetched) <= MAX_READ_BYTES


class TestElsewhere:
    """Tensors whose bytes are in other files, which whoever loads the model opens."""

    @pytest.mark.parametrize("location", ["weights.data", "sub/w.bin", "a\\b", "..w", "a..", ""])
    def test_files_beside_the_model_are_taken(self, location: str) -> None:
        content = make_model(elsewhere(location), elsewhere("more")).SerializeToString()

        assert facts_of(content).parameters == 4

    @pytest.mark.parametrize("location", OUTSIDE)
    def test_files_anywhere_else_are_refused(self, location: str) -> None:
        content = make_model(elsewhere("sound"), elsewhere(location)).SerializeToString()

        with pytest.raises(LyingHeaderError, match="not beside the model"):
            facts_of(content)

    def test_what_is_no_text_is_refused(self) -> None:
        content = make_model(elsewhere("~~~~")).SerializeToString()

        with pytest.raises(LyingHeaderError, match="not beside the model"):
            facts_of(content.replace(b"~~~~", b"\xff\xfe.."))

    def test_a_name_said_after_the_place_or_twice_counts(self) -> None:
        for entry in (
            b"\x12\x04../a" + KEY,
            KEY + b"\x12\x04../a" + b"\x12\x01a",
            KEY + b"\x12\x04../a" + b"\x0a\x08whatever",
        ):
            tensor = elsewhere("a").SerializeToString() + b"\x6a" + _varint(len(entry)) + entry
            graph = b"\x2a" + _varint(len(tensor)) + tensor

            with pytest.raises(LyingHeaderError, match="not beside the model"):
                facts_of(b"\x08\x08\x3a" + _varint(len(graph)) + graph)

    @pytest.mark.parametrize("size", [0, 100_000])
    @pytest.mark.parametrize("place", sorted(PLACES))
    def test_wherever_a_tensor_can_be(self, *, place: str, size: int) -> None:
        tensor = elsewhere("../secret")
        tensor.doc_string = "d" * size
        model = PLACES[place](tensor)

        with pytest.raises(LyingHeaderError, match="not beside the model"):
            facts_of(model.SerializeToString())
        tensor.external_data[1].value = "beside"
        facts_of(PLACES[place](tensor).SerializeToString())

    def test_no_deeper_than_readers_of_protobuf_go(self) -> None:
        inner = b"location"
        for _ in range(MAX_DEPTH):
            # A node, which has an attribute, which has a graph.
            for head in (b"\x32", b"\x2a", b"\x0a"):
                inner = head + _varint(len(inner)) + inner

        with pytest.raises(LyingHeaderError, match="too deep"):
            facts_of(b"\x08\x08\x3a" + _varint(len(inner)) + inner)

    def test_constants_are_not_fetched(self) -> None:
        constant = numpy_helper.from_array(np.zeros(1_000_000, dtype=np.float32))
        content = in_node(constant).SerializeToString()
        fetched: list[tuple[int, int]] = []

        facts_of(content, fetched)

        assert sum(stop - start for start, stop in fetched) < 64 * 1024

    @given(st.text(alphabet="./\\aC:\0", max_size=9))
    def test_no_path_gets_out_of_the_folder(self, location: str) -> None:
        content = make_model(elsewhere(location)).SerializeToString()
        with suppress(LyingHeaderError):
            facts_of(content)
            path = PureWindowsPath(location)
            assert not path.anchor
            assert ".." not in path.parts
            assert "\0" not in location


class TestFuzzed:
    @given(st.data())
    def test_any_change_is_read_or_refused(self, data: st.DataObject) -> None:
        content = bytearray(data.draw(st.sampled_from(CHANGED)))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
            if not content:
                return

        _read_or_refuse(bytes(content))

    @given(st.binary(max_size=200))
    def test_any_bytes_are_read_or_refused(self, content: bytes) -> None:
        _read_or_refuse(content)


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _read_or_refuse(content: bytes) -> None:
    fetched: list[tuple[int, int]] = []
    with suppress(LyingHeaderError, BoundReachedError):
        facts_of(content, fetched)
    assert sum(stop - start for start, stop in fetched) <= len(content)
