import pytest
from pydantic import ValidationError

from maas.user.interface.schemas import ProfileUpdate


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ({"value": "Ada"}, "string_type"),
        (1, "string_type"),
        ("", "invalid-display-name"),
    ],
)
def test_a_display_name_that_will_not_do_is_blamed_on_its_field(sent: object, kind: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ProfileUpdate.model_validate({"display_name": sent})

    (error,) = refused.value.errors()
    assert (error["type"], error["loc"]) == (kind, ("display_name",))


def test_null_clears_a_display_name() -> None:
    assert ProfileUpdate.model_validate({"display_name": None}).display_name is None
