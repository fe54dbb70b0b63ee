"""What the index of words is asked for, of what a search wants."""

import pytest

from maas.model.application.search import RegistryFilter
from maas.model.infrastructure.search_conditions import MOST_POWERS, Range, ranges_of, words_of


class TestRanges:
    def test_reach_over_the_powers_of_two_that_there_are(self) -> None:
        wide = Range("context", "context_length", 100_000, None)

        assert wide.powers == range(16, 63)
        assert wide.cut(8_192, 131_072).powers == range(16, 18)

    @pytest.mark.parametrize(
        ("least", "most", "is_word"),
        [
            (100_000, None, True),
            (None, 100_000, True),
            (5_000, 9_000, True),
            (1, None, False),
            (None, 10**12, False),
            (8_192, 140_000, False),
        ],
    )
    def test_are_words_where_they_tell_few_from_many(
        self, *, least: int | None, most: int | None, is_word: bool
    ) -> None:
        found = Range("context", "context_length", least, most).cut(8_192, 131_072)

        assert found.is_word is is_word

    def test_that_nothing_is_in_are_no_words(self) -> None:
        beyond = Range("parameters", "parameters", 80 * 10**9, None).cut(10**9, 30 * 10**9)

        assert not beyond.powers
        assert words_of(RegistryFilter(dtype="F16"), [beyond]) == "'dtype=F16'"

    def test_over_too_many_powers_are_no_words(self) -> None:
        wide = Range("size", "size", 2, None).cut(1, 2**40)

        assert len(wide.powers) > MOST_POWERS
        assert not wide.is_word

    def test_of_what_nobody_has_stay_wide(self) -> None:
        wide = Range("size", "size", 2, None)

        assert wide.cut(None, None) == wide


def test_words_of_ranges_go_with_others_only() -> None:
    wanted = RegistryFilter(architecture="bert", min_context_length=100_000)
    ranges = [each.cut(8_192, 131_072) for each in ranges_of(wanted)]

    assert words_of(wanted, ranges) == "'architecture=bert' & ('context=16' | 'context=17')"
    assert words_of(RegistryFilter(min_context_length=100_000), ranges) is None
    assert words_of(wanted) is None
