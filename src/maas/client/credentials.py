"""Where the API is, and the key that opens it."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from yarl import URL

from maas.client.errors import ClientError
from maas.client.logins import find_stored_key

DEFAULT_URL: Final = "http://127.0.0.1:8000"
URL_VARIABLE: Final = "MAAS_API_URL"
KEY_VARIABLE: Final = "MAAS_API_KEY"
MAX_KEY_CHARS: Final = 8192

_KEY = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An API's address, and a credential that is for this address alone."""

    url: URL
    key: str = field(repr=False)

    @property
    def is_exposed(self) -> bool:
        """Tell whether the key goes over a network that anybody on it can read."""
        return self.url.scheme == "http" and not is_loopback(self.url)


def find_access(
    *, url: str | None, key_file: Path | None, environment: Mapping[str, str] | None = None
) -> Access:
    """Take the address and the key from the command line, the environment, or `maas login`.

    Nothing is read from the folder the command runs in: a file in a stranger's folder must not say
    where a key is sent.

    Raises:
        ClientError: the address is none, or there is no key for it.
    """
    given = os.environ if environment is None else environment
    address = read_url(url or given.get(URL_VARIABLE) or DEFAULT_URL)
    if key_file is not None:
        key = _read_key_file(key_file)
    else:
        key = given.get(KEY_VARIABLE, "").strip() or find_stored_key(str(address), given) or ""
    if not key:
        raise ClientError(
            f"There is no key for {address}. Sign in with `maas login --url {address}`, or put an "
            f"API key with the scopes model:read and model:write into {KEY_VARIABLE}, or into a "
            "file that --api-key-file names."
        )
    if len(key) > MAX_KEY_CHARS or _KEY.fullmatch(key) is None:
        message = "The API key has characters that no key has: was something else pasted?"
        raise ClientError(message)
    return Access(url=address, key=key)


def read_url(text: str) -> URL:
    """Read an API's address, without a slash at its end.

    Raises:
        ClientError: it is not one.
    """
    try:
        url = URL(text.rstrip("/"))
    except ValueError:
        url = URL()
    is_plain = not (url.user or url.password or url.query_string or url.fragment)
    if url.scheme not in {"http", "https"} or not url.host or not is_plain:
        message = f"{text} is no address of an API; one looks like {DEFAULT_URL}."
        raise ClientError(message)
    return url


def is_loopback(url: URL) -> bool:
    if url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host or "").is_loopback
    except ValueError:
        return False


def _read_key_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY_CHARS + 1)
        return text.decode("ascii").strip()
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror}."
        raise ClientError(message) from None
    except UnicodeDecodeError:
        message = f"{path} holds no API key."
        raise ClientError(message) from None
