import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from maas.audit.infrastructure.signing import (
    Ed25519Signer,
    UnreadableKeyError,
    is_signed_by,
    load_signer,
    read_public_keys,
)
from maas.shared.infrastructure.settings import AuditSettings, InvalidSettingsError

SECRET = "unit-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz"
SEED = bytes(range(32))
PEM = (
    Ed25519PrivateKey.from_private_bytes(SEED)
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
OTHER_KIND = (
    generate_private_key(SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)


def test_the_key_of_a_seed_is_frozen() -> None:
    signer = Ed25519Signer(SEED)

    assert signer.public_key.hex() == (
        "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    )
    assert signer.key_id == "56475aa75463474c"


def test_only_the_signed_message_passes_under_the_right_key() -> None:
    signer, other = Ed25519Signer(SEED), Ed25519Signer(bytes(32))
    signature = signer.sign(b"message")

    assert is_signed_by(signer.public_key, signature, b"message")
    assert not is_signed_by(signer.public_key, signature, b"massage")
    assert not is_signed_by(other.public_key, signature, b"message")
    assert not is_signed_by(signer.public_key, signature[:-1], b"message")
    assert not is_signed_by(b"no key", signature, b"message")


@pytest.mark.parametrize("given", [PEM, base64.b64encode(SEED).decode(), SEED.hex()])
def test_a_configured_key_is_taken_in_each_form(given: str, tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    path.write_text(given + "\n")

    from_value = load_signer(AuditSettings(signing_key=SecretStr(given)), secret_key=SECRET)
    from_file = load_signer(AuditSettings(signing_key_file=path), secret_key=SECRET)

    assert from_value.key_id == from_file.key_id == Ed25519Signer(SEED).key_id


def test_without_one_it_follows_from_the_secret_key() -> None:
    one, again = (load_signer(AuditSettings(), secret_key=SECRET) for _ in range(2))
    other = load_signer(AuditSettings(), secret_key=SECRET + "x")

    assert one.key_id == again.key_id != other.key_id


@pytest.mark.parametrize("given", ["nonsense", "AAAA", PEM[:60], OTHER_KIND])
def test_anything_else_is_refused_by_its_name_and_not_shown(given: str) -> None:
    with pytest.raises(InvalidSettingsError, match="MAAS_AUDIT__SIGNING_KEY: ") as caught:
        load_signer(AuditSettings(signing_key=SecretStr(given)), secret_key=SECRET)

    assert given not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    settings = AuditSettings(signing_key_file=Path("/nowhere/signing.pem"))

    with pytest.raises(InvalidSettingsError, match=r"/nowhere/signing\.pem cannot be read"):
        load_signer(settings, secret_key=SECRET)


def test_public_keys_are_read_in_each_form(tmp_path: Path) -> None:
    signer = Ed25519Signer(SEED)
    (tmp_path / "a.pem").write_text(signer.public_pem())
    (tmp_path / "b").write_text(Ed25519Signer(bytes(32)).public_key.hex())

    keys = read_public_keys([tmp_path / "a.pem", tmp_path / "b"])

    assert keys[signer.key_id] == signer.public_key
    assert len(keys) == 2


@pytest.mark.parametrize("content", ["", "nonsense", PEM, "-----BEGIN PUBLIC KEY-----\nAA=="])
def test_a_file_without_a_public_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)

    with pytest.raises(UnreadableKeyError):
        read_public_keys([path])
