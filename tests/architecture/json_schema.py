"""As much of JSON Schema as our OpenAPI document uses; a keyword it does not know is an error."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

Schema = Mapping[str, Any]

_ANNOTATIONS = frozenset(
    {"title", "description", "examples", "default", "writeOnly", "discriminator"}
)
_CHECKED = frozenset(
    {
        *("$ref", "type", "properties", "required", "additionalProperties", "items", "anyOf"),
        *("oneOf", "enum", "const", "pattern", "format", "minLength", "maxLength"),
        *("minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum"),
        *("maxProperties", "propertyNames"),
    }
)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_FORMATS: Mapping[str, Callable[[str], object]] = {
    "uuid": UUID,
    "date-time": datetime.fromisoformat,
}


class UnknownKeywordError(Exception):
    """The document uses a keyword that nothing here would check."""


def resolve(document: Schema, node: Schema) -> Schema:
    while "$ref" in node:
        target: Any = document
        for part in str(node["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def complaints(document: Schema, schema: Schema, value: object, at: str = "$") -> Iterator[str]:
    """Say what of a value its schema does not allow; a property no schema names is one too."""
    schema = resolve(document, schema)
    unknown = schema.keys() - _ANNOTATIONS - _CHECKED
    if unknown:
        raise UnknownKeywordError(f"{sorted(unknown)} at {at}")
    wanted = schema.get("type")
    if wanted is not None and not _is_of(wanted, value):
        yield f"{at}: {value!r} is no {wanted}"
        return
    yield from _of_choice(document, schema, value, at)
    match value:
        case str():
            yield from _of_text(schema, value, at)
        case int() | float() if not isinstance(value, bool):
            yield from _of_number(schema, value, at)
        case list():
            yield from _of_array(document, schema, value, at)
        case dict():
            yield from _of_object(document, schema, value, at)
        case _:
            return


def _of_choice(document: Schema, schema: Schema, value: object, at: str) -> Iterator[str]:
    for word in ("anyOf", "oneOf"):
        branches = schema.get(word, [])
        if branches and all(any(complaints(document, b, value, at)) for b in branches):
            yield f"{at}: none of {word} takes {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is not one of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"


def _is_of(wanted: str, value: object) -> bool:
    is_number_by_name_only = isinstance(value, bool) and wanted in {"integer", "number"}
    return isinstance(value, _TYPES[wanted]) and not is_number_by_name_only


def _of_text(schema: Schema, value: str, at: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{at}: {value!r} has a length that is not allowed"
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{at}: {value!r} does not match {schema['pattern']}"
    read = _FORMATS.get(schema.get("format", ""))
    if read is not None:
        try:
            read(value)
        except ValueError:
            yield f"{at}: {value!r} is no {schema['format']}"


def _of_number(schema: Schema, value: float, at: str) -> Iterator[str]:
    if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at}: {value} is out of range"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{at}: {value} is out of range"


def _of_array(document: Schema, schema: Schema, value: list[Any], at: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{at}: {len(value)} items are not allowed"
    for index, item in enumerate(value):
        yield from complaints(document, schema.get("items", {}), item, f"{at}[{index}]")


def _of_object(document: Schema, schema: Schema, value: dict[str, Any], at: str) -> Iterator[str]:
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", not known)
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}: lacks {name}"
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{at}: {len(value)} entries are not allowed"
    for name, item in value.items():
        yield from complaints(document, schema.get("propertyNames", {}), name, f"{at}: {name!r}")
        inner = known.get(name, more)
        if inner is False:
            yield f"{at}: {name} is not in the schema"
        elif inner is not True:
            yield from complaints(document, inner, item, f"{at}.{name}")
