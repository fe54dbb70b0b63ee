"""Fields of requests and answers that are more than one string: entries, metrics, sources."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, GetPydanticSchema, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from maas.model.domain.metadata import (
    MAX_ENTRIES,
    MAX_KEY_CHARS,
    MAX_METRICS,
    MAX_VALUE_CHARS,
    Metadata,
    Metrics,
)
from maas.model.domain.source import Source
from maas.model.domain.text import MAX_URL_CHARS, SourceUrl, VersionName
from maas.model.public import ModelId
from maas.shared.domain.errors import InvalidInputError
from maas.shared.interface.types import ReadModel
from maas.shared.interface.values import value_text

SHA256_PATTERN = "^[0-9a-f]{64}$"

VersionField = Annotated[
    VersionName, value_text(VersionName, 64, pattern="^[A-Za-z0-9._+-]{1,64}$")
]


def _mapping(
    make: Callable[[dict[str, Any]], object], values: CoreSchema, *, max_entries: int
) -> GetPydanticSchema:
    """Let a field take a value object that is made of an object of JSON."""

    def parse(entries: dict[str, Any]) -> object:
        try:
            return make(entries)
        except InvalidInputError as exc:
            raise PydanticCustomError(exc.code, exc.detail) from exc

    keys = core_schema.str_schema(strict=True, min_length=1, max_length=MAX_KEY_CHARS)
    schema = core_schema.no_info_after_validator_function(
        parse, core_schema.dict_schema(keys, values, max_length=max_entries)
    )
    return GetPydanticSchema(lambda _source, _handler: schema)


MetadataField = Annotated[
    Metadata,
    _mapping(
        Metadata,
        core_schema.union_schema(
            [
                core_schema.bool_schema(strict=True),
                core_schema.int_schema(strict=True),
                core_schema.float_schema(strict=True),
                core_schema.str_schema(strict=True, max_length=MAX_VALUE_CHARS),
            ]
        ),
        max_entries=MAX_ENTRIES,
    ),
]
MetricsField = Annotated[
    Metrics, _mapping(Metrics, core_schema.float_schema(strict=True), max_entries=MAX_METRICS)
]
EntriesRead: TypeAlias = dict[str, bool | int | float | str]


def _hex_or_none(value: object) -> str | None:
    return None if value is None else str(value)


ChecksumField = Annotated[
    str | None,
    BeforeValidator(_hex_or_none),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": SHA256_PATTERN}, {"type": "null"}]}),
]


class _SourceModel(ReadModel):
    """In requests as in answers: what is read may be sent back."""

    model_config = ConfigDict(extra="forbid")


class UploadedSource(_SourceModel):
    kind: Literal["uploaded"]

    def to_domain(self) -> Source:
        return Source(kind=self.kind)


class FineTunedSource(_SourceModel):
    kind: Literal["fine-tuned-from"]
    model_id: UUID
    version: VersionField

    def to_domain(self) -> Source:
        return Source(kind=self.kind, model_id=ModelId(self.model_id), version=self.version)


class ImportedSource(_SourceModel):
    kind: Literal["imported-from"]
    url: Annotated[SourceUrl, value_text(SourceUrl, MAX_URL_CHARS, format="uri")]

    def to_domain(self) -> Source:
        return Source(kind=self.kind, url=self.url)


SourceField = Annotated[
    UploadedSource | FineTunedSource | ImportedSource, Field(discriminator="kind")
]
