import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from maas.embedded.signing_key import ensure_audit_key, ensure_signing_key
from maas.shared.infrastructure.signing_keys import read_private_pem


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_start_makes_a_private_key(tmp_path: Path) -> None:
    path = tmp_path / "signing-key.pem"

    was_exposed = ensure_signing_key(path)

    assert not was_exposed
    assert mode_of(path) == 0o600
    assert read_private_pem(path.read_text()).curve.name == "secp256r1"


def test_the_audit_trail_has_a_key_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "audit-key.pem"

    was_exposed = ensure_audit_key(path)

    assert not was_exposed
    assert mode_of(path) == 0o600
    assert isinstance(load_pem_private_key(path.read_bytes(), None), Ed25519PrivateKey)


def test_later_starts_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "signing-key.pem"
    ensure_signing_key(path)
    before = path.read_text()

    ensure_signing_key(path)

    assert path.read_text() == before


def test_one_that_others_could_read_is_closed_and_told_of(tmp_path: Path) -> None:
    path = tmp_path / "signing-key.pem"
    ensure_signing_key(path)
    path.chmod(0o644)

    assert ensure_signing_key(path)
    assert mode_of(path) == 0o600
