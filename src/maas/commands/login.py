"""`maas login` and `maas logout`: a key for this machine."""

import asyncio
import os
import sys
from typing import Annotated

import typer

from maas.commands.model import Url, explaining, say
from maas.terminal import fail, load, warn


def login(
    *,
    username: Annotated[
        str | None, typer.Option("--username", help="User name or e-mail address.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="The tenant to act in, by its short name.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    url: Url = None,
) -> None:
    """Sign in once: an API key for `maas model` is made and kept, the password is not.

    The key lies in ~/.config/maas/keys.json, readable by you alone. Signing in again ends it.
    """
    if not password_stdin and not sys.stdin.isatty():
        raise fail("no terminal to ask for a password at: use --password-stdin", code=2)
    if username is None and password_stdin:
        raise fail("--password-stdin needs --username", code=2)
    with explaining():
        address = _address(url)
        if load("maas.client.credentials:Access")(url=address, key="").is_exposed:
            warn(f"the password goes to {address} unencrypted: anybody on the way can read it")
        name = username if username is not None else typer.prompt(f"User name at {address}")
        if password_stdin:
            password = sys.stdin.readline().rstrip("\r\n")
        else:
            password = typer.prompt("Password", hide_input=True)
        signed_in = asyncio.run(
            load("maas.client.sign_in:sign_in")(
                address,
                username=name,
                password=password,
                tenant=tenant,
                environment=os.environ,
            )
        )
    until = "" if signed_in.expires_at is None else f", good until {signed_in.expires_at:%Y-%m-%d}"
    say(f"Signed in at {address}. The key is in {signed_in.path}{until}.")


def logout(*, url: Url = None) -> None:
    """Forget the key of an address on this machine."""
    with explaining():
        address = _address(url)
        key_id = load("maas.client.sign_in:forget")(address, os.environ)
    if key_id is None:
        raise fail(f"there is no key for {address} on this machine")
    say(f"Forgotten. Copies of it are good until API key {key_id} is deleted or expires.")


def _address(url: str | None) -> object:
    credentials = load("maas.client.credentials")
    given = url or os.environ.get(credentials.URL_VARIABLE) or credentials.DEFAULT_URL
    return credentials.read_url(given)
