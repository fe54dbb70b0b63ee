"""`maas keys`, as an operator types it: a key is added, rotated to, listed, retired, refused."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import typer
from typer.testing import CliRunner, Result

from maas import cli, sealed
from maas.cli import app
from maas.commands import servers
from maas.shared.infrastructure.sealing_keys import KEY_FILE_NAME
from maas.shared.infrastructure.sealing_ring import RingKey
from tests.conftest import TEST_SECRET

Maas: TypeAlias = Callable[..., Result]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60), pytest.mark.usefixtures("clean")]

DERIVED = RingKey.derived(TEST_SECRET).id.hex()


class Unwilling:
    """A KMS that wraps nothing."""

    def wrap(self, key: bytes) -> bytes:
        raise ValueError(key)


def open_nothing() -> Unwilling:
    message = "no region"
    raise ValueError(message)


def open_unwilling() -> Unwilling:
    return Unwilling()


@pytest.fixture
def maas(
    settings_of_worker: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Maas:
    """Run `maas keys` in this process: six commands take a second, and not ten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "forbid_core_dumps", lambda: None)
    for name, value in settings_of_worker.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, **given: str) -> Result:
        return CliRunner().invoke(app, ["keys", *words], env={"COLUMNS": "200", **given})

    return run


def test_from_the_derived_key_to_one_of_its_own(
    maas: Maas, settings_of_worker: dict[str, str]
) -> None:
    added, rotated = maas("add"), maas("rotate")
    retired, listed = maas("retire", DERIVED), maas("ls", "--json")
    shown = maas("ls")

    file = Path(settings_of_worker["MAAS_DATA_DIR"]) / KEY_FILE_NAME
    key = json.loads(file.read_text())["keys"][0]
    keys = json.loads(listed.stdout)["keys"]
    assert [run.exit_code for run in (added, rotated, retired, listed, shown)] == [0] * 5
    assert [(each["id"], each["state"], each["values"]) for each in keys] == [
        (key["id"], "current", 0),
        (DERIVED, "retired", 0),
    ]
    assert str(file) in added.stdout.replace("\n", "")
    assert "MAAS_SECRET_KEY stays" in retired.stdout
    assert "Take it out" not in retired.stdout
    assert not any(key["key"] in run.output for run in (added, rotated, retired, listed, shown))


@pytest.mark.parametrize(
    ("secret", "variable"),
    [(None, "MAAS_SEALING__KEYS"), ("b" * 48, "MAAS_AUTH__PREVIOUS_SECRET_KEY")],
)
def test_a_key_of_a_variable_is_to_be_taken_out_there(
    maas: Maas, secret: str | None, variable: str
) -> None:
    newer, older = RingKey.of(b"n" * 32), RingKey.of(b"o" * 32)
    listed = ",".join(base64.b64encode(key.secret).decode() for key in (newer, older))
    given = {"MAAS_SEALING__KEYS": listed}
    if secret is not None:
        older = RingKey.derived(secret)
        given["MAAS_AUTH__PREVIOUS_SECRET_KEY"] = secret

    retired, listing = maas("retire", older.id.hex(), **given), maas("ls", "--json", **given)

    places = {key["id"]: key["kept_in"] for key in json.loads(listing.stdout)["keys"]}
    assert f"Take it out of {variable} " in retired.stdout
    assert (places[older.id.hex()], places[DERIVED]) == (variable, "MAAS_SECRET_KEY")


@pytest.mark.parametrize("function", ["open_nothing", "open_unwilling"])
def test_a_kms_that_fails_is_told_by_its_errors_name_alone(
    maas: Maas, settings_of_worker: dict[str, str], function: str
) -> None:
    refused = maas("add", MAAS_SEALING__KMS=f"{__name__}:{function}")

    assert isinstance(refused.exception, SystemExit)
    assert (refused.exit_code, "ValueError" in refused.stderr) == (1, True)
    assert "region" not in refused.stderr
    assert not (Path(settings_of_worker["MAAS_DATA_DIR"]) / KEY_FILE_NAME).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rotate",), "maas keys add"),
        (("retire", DERIVED), "before the current one"),
        (("retire", "nonsense"), "16 hexadecimal digits"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    maas: Maas, words: tuple[str, ...], said: str
) -> None:
    refused = maas(*words)

    assert refused.exit_code in {1, 2}
    assert said in refused.stderr


def test_keys_in_the_environment_are_changed_there(maas: Maas) -> None:
    refused = maas("add", MAAS_SEALING__KEYS="A" * 43)

    assert (refused.exit_code, "MAAS_SEALING__KEYS" in refused.stderr) == (1, True)
    assert "second there and restart" in refused.stderr


def test_what_cannot_seal_does_not_start(maas: Maas) -> None:
    maas("add"), maas("rotate"), maas("retire", DERIVED)
    astray = {"MAAS_DATA_DIR": "elsewhere"}

    lost = CliRunner().invoke(app, ["serve"], env=astray)
    unread = CliRunner().invoke(app, ["serve"], env={"MAAS_SEALING__KEYS_FILE": "/no/such.json"})
    listed = maas("ls", **astray)

    assert (lost.exit_code, unread.exit_code) == (1, 1)
    assert f"sealing key {DERIVED} is retired" in lost.stderr
    assert unread.stderr.startswith("error: MAAS_SEALING__KEYS_FILE: ")
    assert "new secrets are refused" in listed.stderr


def test_what_starts_without_a_key_that_is_needed_says_so(
    maas: Maas, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count(_settings: object) -> int:
        return 3

    def stop(*_: object) -> None:
        raise typer.Exit(7)

    monkeypatch.setattr(sealed, "count_lost", count)
    monkeypatch.setattr(servers, "_refuse_unfit_servers", stop)

    started = CliRunner().invoke(app, ["serve"])

    assert (started.exit_code, maas("ls").exit_code) == (7, 0)
    assert "3 kept secrets are sealed under keys that are not here" in started.stderr


def test_without_a_database_nothing_is_changed(
    maas: Maas, settings_of_worker: dict[str, str]
) -> None:
    refused = maas("add", MAAS_DATABASE__SYSTEM_URL="postgresql://nobody@127.0.0.1:1/none")

    assert refused.exit_code == 1
    assert not (Path(settings_of_worker["MAAS_DATA_DIR"]) / KEY_FILE_NAME).exists()
