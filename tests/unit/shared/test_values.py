"""Value objects as fields: strings in and out, refused in the field they came in."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import ValidationError
from typing_extensions import override

from maas.shared.domain.errors import InvalidInputError
from maas.shared.interface.types import StrictModel
from maas.shared.interface.values import value_text


class InvalidColourError(InvalidInputError):
    code = "invalid-colour"

    def __init__(self) -> None:
        super().__init__("A colour is `red`, {say}.")


@dataclass(frozen=True, slots=True)
class Colour:
    value: str

    def __post_init__(self) -> None:
        if self.value != "red":
            raise InvalidColourError

    @override
    def __str__(self) -> str:
        return self.value


ColourField = Annotated[Colour, value_text(Colour, 9, examples=["red"])]


class Painting(StrictModel):
    ground: ColourField
    frame: ColourField | None = None


def errors_of(body: dict[str, object]) -> list[dict[str, Any]]:
    with pytest.raises(ValidationError) as refused:
        Painting.model_validate(body)
    return [dict(error) for error in refused.value.errors()]


def test_a_string_becomes_the_value_and_a_string_again() -> None:
    painting = Painting.model_validate({"ground": "red", "frame": None})

    assert painting.ground == Colour("red")
    assert painting.model_dump_json() == '{"ground":"red","frame":null}'


@pytest.mark.parametrize("value", [1, True, None, ["red"], {"value": "red"}, {}])
def test_what_is_no_string_is_refused_as_such(value: object) -> None:
    (error,) = errors_of({"ground": value})

    assert (error["type"], error["loc"]) == ("string_type", ("ground",))


def test_the_form_of_the_object_is_refused_where_null_may_stand() -> None:
    (error,) = errors_of({"ground": "red", "frame": {"value": "red"}})

    assert (error["type"], error["loc"]) == ("string_type", ("frame",))


def test_a_refusal_keeps_its_code_message_and_place() -> None:
    (error,) = errors_of({"ground": "blue"})

    assert (error["type"], error["loc"]) == ("invalid-colour", ("ground",))
    assert error["msg"] == "A colour is `red`, {say}."


def test_the_documentation_shows_a_string() -> None:
    assert Painting.model_json_schema()["properties"]["ground"] | {"title": None} == {
        "title": None,
        "type": "string",
        "minLength": 1,
        "maxLength": 9,
        "examples": ["red"],
    }
