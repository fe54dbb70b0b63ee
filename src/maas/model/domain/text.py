"""Text people write about models, and the names they give them."""

import re
import unicodedata
from dataclasses import dataclass

from typing_extensions import override

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.text import has_invisible

MAX_NAME_CHARS = 200
MAX_DESCRIPTION_CHARS = 4_000
MAX_LABEL_CHARS = 100
MAX_REASON_CHARS = 500

_SEGMENT = r"\w(?:[\w.+-]*\w)?"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*(?::{_SEGMENT})?")
_VERSION = re.compile(r"[A-Za-z0-9._+-]{1,64}")
_DOTS = re.compile(r"\.{1,2}")


class InvalidModelNameError(InvalidInputError):
    code = "invalid-model-name"
    title = "Not a model name"

    def __init__(self) -> None:
        super().__init__(
            f"A model name has 1 to {MAX_NAME_CHARS} characters and looks like `name`, `org/name` "
            "or `org/name:tag`. Each part holds letters and digits of any script, underscores, "
            "and, between them, dots, dashes or plus signs."
        )


class InvalidVersionNameError(InvalidInputError):
    code = "invalid-version-name"
    title = "Not a version"

    def __init__(self) -> None:
        super().__init__(
            "A version has 1 to 64 letters, digits, dots, dashes, underscores or plus signs "
            "(ASCII), as in 1.0.0 or 2026-11-21, and is not `.` or `..`."
        )


class InvalidTextError(InvalidInputError):
    code = "invalid-model-text"
    title = "Not a text that can be kept"

    def __init__(self, max_chars: int) -> None:
        super().__init__(
            f"The text has 1 to {max_chars} characters, and none that cannot be seen; "
            "a description may have line breaks and tabs."
        )


@dataclass(frozen=True, slots=True)
class ModelName:
    """A name like `org/name:tag`, unique among a tenant's models; case matters.

    It is kept in Unicode's composed form (NFC), so that one look has one spelling.
    """

    value: str

    def __post_init__(self) -> None:
        if has_invisible(self.value):
            raise InvalidModelNameError
        text = unicodedata.normalize("NFC", self.value)
        if not 1 <= len(text) <= MAX_NAME_CHARS or not _NAME.fullmatch(text):
            raise InvalidModelNameError
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class VersionName:
    """The caller's own name of a version, as in `1.0.0`; unique in its model."""

    value: str

    def __post_init__(self) -> None:
        if not _VERSION.fullmatch(self.value) or _DOTS.fullmatch(self.value):
            raise InvalidVersionNameError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Description:
    """Free text of several lines."""

    value: str

    def __post_init__(self) -> None:
        text = self.value.strip()
        seen = text.translate({ord(char): None for char in "\r\n\t\u200c\u200d"})
        if not 1 <= len(text) <= MAX_DESCRIPTION_CHARS or has_invisible(seen):
            raise InvalidTextError(MAX_DESCRIPTION_CHARS)
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Label:
    """A few words on one line: a task, a licence."""

    value: str

    def __post_init__(self) -> None:
        text = self.value.strip()
        if not 1 <= len(text) <= MAX_LABEL_CHARS or has_invisible(text):
            raise InvalidTextError(MAX_LABEL_CHARS)
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a version changed its status, on one line."""

    value: str

    def __post_init__(self) -> None:
        text = self.value.strip()
        if not 1 <= len(text) <= MAX_REASON_CHARS or has_invisible(text):
            raise InvalidTextError(MAX_REASON_CHARS)
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value
