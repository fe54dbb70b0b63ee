"""Every refusal has a code of its own, and the codes are written down."""

from collections import Counter

from maas.shared.domain.errors import MaasError
from maas.shared.interface.problems import status_of
from tests.architecture.inspection import KEBAB_CASE, ROOT, list_errors, list_problems


def ambiguous(errors: list[type[MaasError]]) -> list[str]:
    counts = Counter(error.code for error in errors)
    return sorted(code for code, count in counts.items() if count > 1)


def inherited(errors: list[type[MaasError]]) -> list[str]:
    """Name errors that would answer with their kind's code, or without a title of their own."""
    return [e.__name__ for e in errors if "code" not in vars(e) or "title" not in vars(e)]


def test_codes_are_unique() -> None:
    assert ambiguous(list_errors()) == []


def test_every_error_has_a_code_and_a_title_of_its_own() -> None:
    assert inherited(list_errors()) == []


def test_codes_are_kebab_case() -> None:
    assert [e.code for e in list_problems() if not KEBAB_CASE.fullmatch(e.code)] == []


def test_every_error_is_of_a_kind_with_a_status() -> None:
    assert all(400 <= status_of(error) < 600 for error in list_errors())


def test_every_code_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    assert [e.code for e in list_problems() if f"`{e.code}`" not in text] == []


class TestPlanted:
    def test_two_errors_with_one_code_are_found(self) -> None:
        first = type("FirstError", (MaasError,), {"code": "same"})
        second = type("SecondError", (MaasError,), {"code": "same"})

        assert ambiguous([first, second]) == ["same"]

    def test_an_error_without_a_code_is_found(self) -> None:
        assert inherited([type("VagueError", (MaasError,), {})]) == ["VagueError"]
