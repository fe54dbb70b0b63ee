"""Text people write about models, and the names they give them."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from typing_extensions import override

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.text import compose, has_invisible

MAX_NAME_CHARS = 200
MAX_DESCRIPTION_CHARS = 4_000
MAX_LABEL_CHARS = 100
MAX_REASON_CHARS = 500
MAX_CARD_BYTES = 256 * 1024
MAX_TAG_CHARS = 64
MAX_URL_CHARS = 2_000

_SEGMENT = r"\w(?:[\w.+-]*\w)?"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*(?::{_SEGMENT})?")
_VERSION = re.compile(r"[A-Za-z0-9._+-]{1,64}")
_DOTS = re.compile(r"\.{1,2}")
_TAG = re.compile(r"\w(?:[\w.+:-]*\w)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


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


class InvalidCardError(InvalidInputError):
    code = "invalid-model-card"
    title = "Not a model card that can be kept"

    def __init__(self) -> None:
        super().__init__(
            f"A model card is Markdown of 1 to {MAX_CARD_BYTES} bytes in UTF-8, without control "
            "characters other than line breaks and tabs."
        )


class InvalidTagError(InvalidInputError):
    code = "invalid-tag"
    title = "Not a tag"

    def __init__(self) -> None:
        super().__init__(
            f"A tag has 1 to {MAX_TAG_CHARS} characters: letters and digits of any script, "
            "underscores, and, between them, dots, dashes, colons or plus signs."
        )


class InvalidSourceUrlError(InvalidInputError):
    code = "invalid-source-url"
    title = "Not an address a version can have come from"

    def __init__(self) -> None:
        super().__init__(
            f"The address is an absolute https or http URL of at most {MAX_URL_CHARS} characters, "
            "without a user name or password in it."
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
        text = compose(self.value, max_chars=MAX_NAME_CHARS)
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
    """Why a version changed its status, or an alias was moved, on one line."""

    value: str

    def __post_init__(self) -> None:
        text = self.value.strip()
        if not 1 <= len(text) <= MAX_REASON_CHARS or has_invisible(text):
            raise InvalidTextError(MAX_REASON_CHARS)
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What there is to know about a model, in Markdown; kept as it was written."""

    value: str

    def __post_init__(self) -> None:
        # Before it is measured: half of a surrogate pair has no bytes.
        if not self.value.strip() or _CONTROL.search(self.value):
            raise InvalidCardError
        if len(self.value.encode()) > MAX_CARD_BYTES:
            raise InvalidCardError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Tag:
    """A word models are found by; case matters. It is kept in Unicode's composed form (NFC)."""

    value: str

    def __post_init__(self) -> None:
        if has_invisible(self.value):
            raise InvalidTagError
        text = compose(self.value, max_chars=MAX_TAG_CHARS)
        if not 1 <= len(text) <= MAX_TAG_CHARS or not _TAG.fullmatch(text):
            raise InvalidTagError
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """Where a version's files were taken from; never called, only shown."""

    value: str

    def __post_init__(self) -> None:
        text = self.value.strip()
        if not 1 <= len(text) <= MAX_URL_CHARS or has_invisible(text) or " " in text:
            raise InvalidSourceUrlError
        try:
            parts = urlsplit(text)
        except ValueError:
            raise InvalidSourceUrlError from None
        if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc:
            raise InvalidSourceUrlError
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value
