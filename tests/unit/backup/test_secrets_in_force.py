"""What a backup tells to keep apart is what is in force, and not what lies there."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import SecretStr

from maas.backup.secrets import VARIABLES, copy_secrets, list_secrets
from maas.embedded.credentials import Credentials
from maas.shared.infrastructure.settings import Settings, load_settings

IN_FORCE = "in-force-0123456789-abcdefghijklmnopqrstuvwxyz"
OTHER = "no-longer-0123456789-abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        environment="test",
        secret_key=IN_FORCE,
        data_dir=tmp_path,
        database={"url": "postgresql://nobody@localhost:1/none"},
        redis={"url": "redis://localhost:1/0"},
    )


def keep_in_file(folder: Path, secret_key: str) -> None:
    kept = Credentials(
        superuser_password="a",
        owner_password="b",
        app_password="c",
        system_password="d",
        valkey_password="e",
        secret_key=secret_key,
    )
    (folder / "secrets.json").write_text(json.dumps(asdict(kept)), encoding="utf-8")


def names(settings: Settings) -> set[str | None]:
    return {
        each.file.name if each.file is not None else each.variable
        for each in list_secrets(settings)
    }


def test_a_file_that_holds_the_key_in_force_is_enough(settings: Settings, tmp_path: Path) -> None:
    keep_in_file(tmp_path, IN_FORCE)

    assert names(settings) == {"secrets.json"}


def test_a_variable_that_is_stronger_than_the_file_is_named_and_copied(
    settings: Settings, tmp_path: Path
) -> None:
    keep_in_file(tmp_path, OTHER)

    copy_secrets(settings, tmp_path / "copied")

    assert names(settings) == {"secrets.json", "MAAS_SECRET_KEY"}
    told = (tmp_path / "copied" / VARIABLES).read_text(encoding="utf-8")
    assert told == f"MAAS_SECRET_KEY={IN_FORCE}\n"


def test_a_file_that_cannot_be_used_does_not_hide_the_key(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "secrets.json").write_text("{", encoding="utf-8")

    assert "MAAS_SECRET_KEY" in names(settings)


def test_the_signing_key_before_is_named(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "before.pem"
    file.write_text("key", encoding="utf-8")
    both = {"previous_key_file": file, "previous_key": SecretStr("key")}
    auth = settings.auth.model_copy(update=both)

    found = names(settings.model_copy(update={"auth": auth}))

    assert {"before.pem", "MAAS_AUTH__PREVIOUS_KEY"} <= found
