"""Value objects of one string, as fields of requests: a string on the wire, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from maas.shared.domain.errors import InvalidInputError


@dataclass(frozen=True, slots=True, eq=False)
class _ValueField:
    make: Callable[[str], object]
    json_schema: JsonSchemaValue

    def __get_pydantic_core_schema__(
        self, _source: type[Any], _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # The handler is not asked: it would let a dataclass in as an object of its fields.
        return core_schema.no_info_after_validator_function(
            self._parse,
            core_schema.str_schema(strict=True),
            serialization=core_schema.to_string_ser_schema(),
        )

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return dict(self.json_schema)

    def _parse(self, text: str) -> object:
        try:
            return self.make(text)
        except InvalidInputError as exc:
            raise PydanticCustomError(exc.code, exc.detail) from exc


def value_text(make: Callable[[str], object], max_chars: int, **json_schema: object) -> _ValueField:
    """Let a field take a value object: `Label` in `Annotated[Label, <this>]`.

    What is no string is `string_type`; what `make` refuses with an `InvalidInputError` is an error
    of the field, under the refusal's code and with its message. `max_chars` and `json_schema` are
    for OpenAPI alone: the value object itself is the judge.
    """
    schema: JsonSchemaValue = {"type": "string", "minLength": 1, "maxLength": max_chars}
    return _ValueField(make, schema | json_schema)
