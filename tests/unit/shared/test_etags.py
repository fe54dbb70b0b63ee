import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.shared.domain.errors import PreconditionFailedError
from maas.shared.interface.etags import (
    InvalidETagError,
    etag_of,
    is_none_match,
    parse_if_match,
    parse_preconditions,
)


class TestIfMatch:
    @pytest.mark.parametrize(
        "header", [['"7"'], ["*"], ['"6", "7"'], ['"6"', '"7"'], ['W/"7", "7"'], [' "7" ,']]
    )
    def test_lets_the_version_through(self, header: list[str]) -> None:
        parse_if_match(header).check(7)

    @pytest.mark.parametrize("header", [['"6"'], ['W/"7"'], ['"77"'], ['""'], ['"7x"']])
    def test_stops_another_version(self, header: list[str]) -> None:
        with pytest.raises(PreconditionFailedError):
            parse_if_match(header).check(7)

    @pytest.mark.parametrize("header", [None, []])
    def test_expects_nothing_when_absent(self, header: list[str] | None) -> None:
        match = parse_if_match(header)

        match.check(7)
        assert match.tags is None

    @pytest.mark.parametrize(
        "header",
        [
            [""],
            [" "],
            ["", ""],
            [","],
            ["7"],
            ['"7'],
            ['"7" "8"'],
            ['*, "7"'],
            ["W/7"],
            [", ".join(['"1"'] * 100)],
        ],
    )
    def test_refuses_what_is_no_list_of_tags(self, header: list[str]) -> None:
        with pytest.raises(InvalidETagError):
            parse_if_match(header)

    @pytest.mark.parametrize("headers", [([""], None), (None, [""]), (None, ["*", '"7"'])])
    def test_refuses_what_is_none_of_both(
        self, headers: tuple[list[str] | None, list[str] | None]
    ) -> None:
        with pytest.raises(InvalidETagError):
            parse_preconditions(*headers)

    @given(st.text(max_size=100))
    def test_noise_is_read_or_refused(self, header: str) -> None:
        try:
            parse_if_match([header])
        except InvalidETagError:
            return


class TestIfNoneMatch:
    @pytest.mark.parametrize("header", ['"7"', 'W/"7"', "*", '"1", "7"'])
    def test_fails_on_a_copy_of_this_version(self, header: str) -> None:
        assert not is_none_match(header, etag_of(7))

    @pytest.mark.parametrize("header", ['"8"', "7", '"'])
    def test_holds_otherwise(self, header: str) -> None:
        assert is_none_match(header, etag_of(7))
