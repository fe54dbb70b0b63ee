from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.audit.domain.merkle import inclusion_path, is_included, root_of

LEAVES = [sha256(bytes([0, number])).digest() for number in range(40)]

trees = st.integers(1, len(LEAVES)).flatmap(
    lambda size: st.tuples(st.just(LEAVES[:size]), st.integers(0, size - 1))
)


def defined(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + defined(leaves[:half]) + defined(leaves[half:])).digest()


class TestRoot:
    @given(trees)
    def test_is_the_one_of_the_definition(self, tree: tuple[list[bytes], int]) -> None:
        leaves, _ = tree

        assert root_of(leaves) == defined(leaves)

    def test_of_three_known_leaves(self) -> None:
        """Frozen, computed apart from this code with `sha256sum`."""
        leaves = [sha256(b"\x00" + text).digest() for text in (b"a", b"b", b"c")]

        assert root_of(leaves).hex() == (
            "36642e73c2540ab121e3a6bf9545b0a24982cd830eb13d3cd19de3ce6c021ec1"
        )

    def test_of_nothing_there_is_none(self) -> None:
        with pytest.raises(ValueError, match="at least one leaf"):
            root_of([])


class TestInclusion:
    @given(trees)
    def test_of_each_leaf_is_shown_by_its_path(self, tree: tuple[list[bytes], int]) -> None:
        leaves, index = tree

        path = inclusion_path(leaves, index)

        assert len(path) <= len(leaves).bit_length()
        assert is_included(
            leaves[index], index=index, size=len(leaves), path=path, root=root_of(leaves)
        )

    @given(trees, st.data())
    def test_of_anything_else_is_not(
        self, tree: tuple[list[bytes], int], data: st.DataObject
    ) -> None:
        leaves, index = tree
        path, root = inclusion_path(leaves, index), root_of(leaves)
        size, leaf = len(leaves), leaves[index]
        bit = data.draw(st.integers(0, 255))
        change = data.draw(st.sampled_from(["leaf", "root", "index", "path", "longer", "shorter"]))
        match change:
            case "leaf":
                leaf = flip(leaf, bit)
            case "root":
                root = flip(root, bit)
            case "index":
                index = data.draw(st.integers(-1, size + 1).filter(lambda other: other != index))
            case "path" if path:
                place = data.draw(st.integers(0, len(path) - 1))
                path[place] = flip(path[place], bit)
            case "shorter" if path:
                path.pop()
            case _:
                path.append(LEAVES[bit % len(LEAVES)])

        assert not is_included(leaf, index=index, size=size, path=path, root=root)

    def test_of_a_leaf_outside_has_no_path(self) -> None:
        for index in (-1, 3):
            with pytest.raises(IndexError, match="no leaf"):
                inclusion_path(LEAVES[:3], index)


def flip(value: bytes, bit: int) -> bytes:
    changed = int.from_bytes(value) ^ 1 << bit
    return changed.to_bytes(len(value))
