import pytest

from maas.shared.domain.spreadsheet import harmless


@pytest.mark.parametrize(
    "value",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "  =1", '=HYPERLINK("x")'],  # noqa: RUF001  meant
)
def test_what_a_spreadsheet_would_run_becomes_text(value: str) -> None:
    assert harmless(value) == f"'{value}"


@pytest.mark.parametrize("value", ["", "ada", "ada@example.com", "王小明", "a=b", "01900000-0000"])
def test_anything_else_stays_as_it_is(value: str) -> None:
    assert harmless(value) == value
