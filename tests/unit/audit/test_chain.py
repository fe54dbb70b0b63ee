from datetime import UTC, datetime, timedelta

from maas.audit.domain.chain import GENESIS, leaf_of, micros, row_hash

AT = datetime(2026, 11, 21, 8, 0, 0, 123456, tzinfo=UTC)


class TestVectors:
    """Frozen, computed apart from this code with `sha256sum`."""

    def test_of_a_leaf(self) -> None:
        leaf = leaf_of(b'{"v":1}')

        assert leaf.hex() == "0fe7f04cd9688fb996eea9ae1248cbe83b4d04805413f35ab25ad9deb5a3cb32"

    def test_of_a_time(self) -> None:
        assert micros(AT).hex() == "000660c4bf54c240"

    def test_of_the_first_rows(self) -> None:
        leaf = leaf_of(b'{"v":1}')

        first = row_hash(GENESIS, seq=1, recorded_micros=micros(AT), leaf=leaf)
        second = row_hash(first, seq=2, recorded_micros=micros(AT), leaf=leaf)

        assert first.hex() == "bd2c0ea2f2ea3f1a54227e8358c6bf30bfb140b559353b2778db6f7f0567c719"
        assert second.hex() == "ca5613a5282f775bac1e380798e79f1869cd8300ff30852ff3f23056da5dcd47"


def test_a_microsecond_is_not_lost_to_rounding_far_from_1970() -> None:
    late = datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

    difference = int.from_bytes(micros(late + timedelta(microseconds=1))) - int.from_bytes(
        micros(late)
    )

    assert difference == 1
