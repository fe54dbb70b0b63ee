"""Column types every context may need."""

from typing import Any, Protocol

from sqlalchemy import Dialect, Text, TypeDecorator
from sqlalchemy.types import TypeEngine
from typing_extensions import override


class _TextValue(Protocol):
    def __init__(self, value: str) -> None: ...

    @property
    def value(self) -> str: ...


class ValueText(TypeDecorator[Any]):
    """Keeps a one-string value object as text."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    cache_ok: bool | None = True

    def __init__(self, value_type: type[_TextValue]) -> None:
        super().__init__()
        self.value_type = value_type

    @override
    def process_bind_param(self, value: _TextValue | None, dialect: Dialect) -> str | None:
        return None if value is None else value.value

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> _TextValue | None:
        return None if value is None else self.value_type(value)
