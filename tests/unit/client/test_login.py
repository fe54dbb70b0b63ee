"""`maas login` tells before a password crosses a network that anybody on it can read."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from maas.cli import app
from maas.client import sign_in as sign_in_module
from maas.client.errors import ClientError


@pytest.mark.parametrize(
    ("url", "is_told"),
    [
        ("http://models.example", True),
        ("https://models.example", False),
        ("http://127.0.0.1:8000", False),
    ],
)
def test_an_open_line_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, *, is_told: bool
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        message = "wrong password"
        raise ClientError(message)

    monkeypatch.setattr(sign_in_module, "sign_in", refuse)
    arguments = ["login", "--url", url, "--username", "ada", "--password-stdin"]

    done = CliRunner().invoke(app, arguments, input="secret\n", env={"HOME": str(tmp_path)})

    assert "wrong password" in done.stderr
    assert ("unencrypted" in done.stderr) is is_told
