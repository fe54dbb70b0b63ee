"""A ring whose keys a KMS wraps: moto's, asked by Amazon's own client."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # it has no stubs
import pytest
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # likewise
from moto import mock_aws

from maas.sealed import add_key, rotate_key
from maas.shared.infrastructure import sealing_keys
from maas.shared.infrastructure.sealing import Place, key_id_of
from maas.shared.infrastructure.sealing_key_file import read_key_file
from maas.shared.infrastructure.sealing_keys import build_sealer, key_file_path
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60), pytest.mark.usefixtures("clean")]

ALIAS = "alias/maas-sealing"
PLACE = Place(table="webhooks", row="1", column="secret", tenant="t")


class AwsKms:
    """What an operator writes for MAAS_SEALING__KMS, in ten lines."""

    def __init__(self) -> None:
        self._client: Any = boto3.client("kms", region_name="eu-central-1")

    def wrap(self, key: bytes) -> bytes:
        wrapped: bytes = self._client.encrypt(KeyId=ALIAS, Plaintext=key)["CiphertextBlob"]
        return wrapped

    def unwrap(self, wrapped: bytes) -> bytes:
        key: bytes = self._client.decrypt(KeyId=ALIAS, CiphertextBlob=wrapped)["Plaintext"]
        return key


class UnreachableKms:
    def unwrap(self, _: bytes) -> bytes:
        raise BotoCoreError


@pytest.fixture
def wrapped(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Settings with a KMS that has a key of ours."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client: Any = boto3.client("kms", region_name="eu-central-1")
        key_id = client.create_key()["KeyMetadata"]["KeyId"]
        client.create_alias(AliasName=ALIAS, TargetKeyId=key_id)
        sealing = settings.sealing.model_copy(update={"kms": f"{__name__}:{AwsKms.__name__}"})
        yield settings.model_copy(update={"sealing": sealing, "data_dir": tmp_path})


def forget_keys() -> None:
    """Be another process."""
    sealing_keys._open.cache_clear()


async def test_keys_are_wrapped_where_they_lie_and_seal_all_the_same(wrapped: Settings) -> None:
    key_id = await add_key(wrapped)
    await rotate_key(wrapped)

    sealed = build_sealer(wrapped).seal(b"plain", PLACE)
    forget_keys()

    [kept] = read_key_file(key_file_path(wrapped)).keys
    assert (kept.is_wrapped, key_id_of(sealed).hex()) == (True, key_id)
    assert build_sealer(wrapped).open(sealed, PLACE) == b"plain"
    plain = base64.b64encode(AwsKms().unwrap(kept.secret)).decode()
    assert plain not in key_file_path(wrapped).read_text()


async def test_without_the_kms_a_process_does_not_start_and_a_running_one_goes_on(
    wrapped: Settings,
) -> None:
    await add_key(wrapped)
    await rotate_key(wrapped)
    running = build_sealer(wrapped)
    sealed = running.seal(b"plain", PLACE)
    away = wrapped.sealing.model_copy(update={"kms": f"{__name__}:{UnreachableKms.__name__}"})

    with pytest.raises(InvalidSettingsError, match="could not be unwrapped") as caught:
        build_sealer(wrapped.model_copy(update={"sealing": away}))

    assert running.open(sealed, PLACE) == b"plain"
    assert "MAAS_SEALING__KEYS_FILE" in str(caught.value)
