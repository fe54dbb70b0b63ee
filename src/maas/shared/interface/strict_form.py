"""Form bodies, for the one route that takes them: OAuth2 clients know no JSON."""

import re
from urllib.parse import unquote_to_bytes

from maas.shared.domain.errors import InvalidInputError
from maas.shared.interface.strict_json import InvalidTextError, check_text

MAX_FIELDS = 32

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class InvalidFormError(InvalidInputError):
    code = "invalid-form"
    title = "The body is not a form we take"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, loc=("body",))


def check_form(body: bytes) -> None:
    """Refuse a form that readers could read in two ways.

    Raises:
        InvalidFormError: too many fields, a field twice, a broken escape.
        InvalidTextError: a NUL, or bytes that are not UTF-8.
    """
    if _BROKEN_ESCAPE.search(body) is not None:
        raise InvalidFormError("A percent sign is not followed by two hexadecimal digits.")
    parts = body.split(b"&", MAX_FIELDS)
    if len(parts) > MAX_FIELDS:
        raise InvalidFormError(f"A form may have {MAX_FIELDS} fields.")
    names: set[str] = set()
    for part in parts:
        name, _, value = part.partition(b"=")
        field = _text(name)
        _text(value)
        if field in names:
            raise InvalidFormError("The form has the same field twice.")
        names.add(field)


def _text(encoded: bytes) -> str:
    try:
        text = unquote_to_bytes(encoded.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidTextError("Send UTF-8, percent-encoded.") from None
    check_text(text)
    return text
