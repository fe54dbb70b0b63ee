"""`maas login`: a password becomes a key of this machine's own, and is kept nowhere."""

import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, Field
from yarl import URL

from maas.client.api import API, Api
from maas.client.credentials import Access
from maas.client.errors import RefusedError
from maas.client.logins import StoredKey, read_keys, write_keys

SCOPES: Final = ("model:read", "model:write")
"""What `maas model` needs, and nothing that makes more keys."""

NOT_FOUND: Final = 404


class _Tokens(BaseModel):
    access_token: str = Field(pattern=r"^[\x21-\x7e]+$", max_length=8192)


class _Issued(BaseModel):
    id: str = Field(pattern="^[0-9a-f-]{36}$")
    key: str = Field(pattern=r"^[\x21-\x7e]+$", max_length=8192)
    expires_at: AwareDatetime | None = None


class SignedIn(BaseModel):
    """Where the key lies, and how long it is good."""

    path: Path
    expires_at: datetime | None


async def sign_in(
    url: URL, *, username: str, password: str, tenant: str | None, environment: Mapping[str, str]
) -> SignedIn:
    """Have a key made, keep it, and end the session and the key of an earlier sign-in.

    Raises:
        ClientError: wrong name or password, no right to make keys, or nowhere to keep it.
    """
    kept = read_keys(environment)
    body = {"username": username, "password": password}
    if tenant is not None:
        body["tenant"] = tenant
    async with Api(Access(url=url, key="")) as api:
        tokens = await api.send("POST", f"{API}/auth/login", _Tokens, body)
    async with Api(Access(url=url, key=tokens.access_token)) as api:
        wanted = {"name": f"maas on {platform.node()}"[:60], "scopes": list(SCOPES)}
        issued = await api.send("POST", f"{API}/users/api-keys", _Issued, wanted)
        earlier = kept.get(str(url))
        kept[str(url)] = StoredKey(key=issued.key, key_id=issued.id)
        path = write_keys(environment, kept)
        if earlier is not None:
            await _end_key(api, earlier.key_id)
        await api.post(f"{API}/auth/logout")
    return SignedIn(path=path, expires_at=issued.expires_at)


async def _end_key(api: Api, key_id: str) -> None:
    """End an earlier key; it may be gone already, or be somebody else's of this machine."""
    try:
        await api.delete(f"{API}/users/api-keys/{key_id}")
    except RefusedError as exc:
        if exc.status != NOT_FOUND:
            raise


def forget(url: URL, environment: Mapping[str, str]) -> str | None:
    """Drop the key of an address; return its id, `None` if there was none."""
    kept = read_keys(environment)
    dropped = kept.pop(str(url), None)
    if dropped is None:
        return None
    write_keys(environment, kept)
    return dropped.key_id
