"""Keys go into a backup so that they can be read back, and only listed ones come out of it."""

import asyncio
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from maas.backup.errors import BackupError, DamagedBackupError, NotEmptyError
from maas.backup.manifest import Manifest
from maas.backup.restoring import check_folder
from maas.backup.secrets import copy_secrets, put_back
from maas.commands import copying
from maas.shared.infrastructure.revisions import known_revisions
from maas.shared.infrastructure.settings import Settings

SECRET = "a secret of 32 characters: $HOME '\n`id`"


def make_settings(**sections: object) -> Settings:
    return Settings.model_validate(
        {
            "environment": "test",
            "secret_key": "backup-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz",
            "database": {"url": "postgresql+asyncpg://maas@localhost:1/none"},
            "redis": {"url": "redis://localhost:1/0"},
            **sections,
        }
    )


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        backup_id="0",
        product_version="1.0",
        revision=known_revisions().head,
        postgres="18.6",
        postgres_major=18,
        dumped_by_major=18,
        started_at="2026-11-22T00:00:00Z",
        snapshot_at="2026-11-22T00:00:01Z",
        finished_at="2026-11-22T00:00:02Z",
        has_parts=True,
        has_secrets=True,
        rows={},
        audit_head=None,
        files={"secrets/secrets.json": "00"},
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A backup whose folder has a key that it lists, and one that somebody put beside it."""
    source = tmp_path / "backup"
    (source / "secrets").mkdir(parents=True)
    for name in ("secrets.json", "audit-key.pem"):
        (source / "secrets" / name).write_text(name)
    return source


def test_a_shell_reads_back_what_was_written(tmp_path: Path) -> None:
    keys = tmp_path / "sealing"
    keys.mkdir()
    (keys / "key.pem").write_text("{}")
    (tmp_path / "key.pem").write_text("signs")
    settings = make_settings(
        data_dir=tmp_path / "data",
        auth={"previous_secret_key": SecretStr(SECRET)},
        audit={"signing_key_file": tmp_path / "key.pem"},
        sealing={"keys_file": keys / "key.pem"},
    )

    copy_secrets(settings, tmp_path / "secrets")

    variables = tmp_path / "secrets" / "environment"
    said = subprocess.run(
        ["sh", "-c", f'. {variables}; printf %s "$MAAS_AUTH__PREVIOUS_SECRET_KEY"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == SECRET
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").glob("MAAS*")} == {
        "MAAS_AUDIT__SIGNING_KEY_FILE": "signs",
        "MAAS_SEALING__KEYS_FILE": "{}",
    }


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(b"\xff\xfe")
    settings = make_settings(audit={"signing_key_file": tmp_path / "key.pem"})

    with pytest.raises(BackupError, match=r"key\.pem, which is to be copied, cannot be read"):
        copy_secrets(settings, tmp_path / "secrets")


def test_only_what_the_backup_lists_is_put_back(
    source: Path, manifest: Manifest, tmp_path: Path
) -> None:
    assert put_back(replace(manifest, has_secrets=False), source, tmp_path) == []
    assert put_back(manifest, source, tmp_path) == ["secrets.json"]

    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "audit-key.pem").exists()
    assert put_back(manifest, source, tmp_path) == []


def test_a_link_is_not_followed(source: Path, manifest: Manifest, tmp_path: Path) -> None:
    (source / "secrets" / "secrets.json").unlink()
    (source / "secrets" / "secrets.json").symlink_to("audit-key.pem")

    with pytest.raises(DamagedBackupError, match="is no file"):
        put_back(manifest, source, tmp_path)


def test_a_dry_run_changes_nothing_and_names_missing_keys(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "new"

    assert asyncio.run(check_folder(folder, manifest)) == [
        "sealing-keys.json",
        "signing-key.pem",
        "audit-key.pem",
    ]
    assert not folder.exists()

    (folder / "artifacts" / "parts").mkdir(parents=True)
    with pytest.raises(NotEmptyError, match="artifacts is not empty"):
        asyncio.run(check_folder(folder, manifest))
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("18")
    with pytest.raises(NotEmptyError, match="has a database"):
        asyncio.run(check_folder(folder, manifest))


def test_nohup_is_let_be() -> None:
    async def hang_up() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        return "done"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done = asyncio.run(copying.interruptible(hang_up()))
    finally:
        signal.signal(signal.SIGHUP, before)

    assert done == "done"
