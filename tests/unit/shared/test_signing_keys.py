"""What the start-up says of a key that will not do; each message names the variable."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from maas.shared.infrastructure.settings import InvalidSettingsError, Settings, load_settings
from maas.shared.infrastructure.signing_keys import generate_private_pem

PEM = generate_private_pem()
VARIABLE = "MAAS_AUTH__PRIVATE_KEY"


def spell(key: object, *, passphrase: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()  # type: ignore[attr-defined, no-any-return]  # any private key


def spell_public(key: ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


UNFIT = {
    "curve": (spell(ec.generate_private_key(ec.SECP384R1())), "P-256"),
    "same-size": (spell(ec.generate_private_key(ec.SECP256K1())), "P-256"),
    "rsa": (spell(rsa.generate_private_key(65537, 2048)), "P-256"),
    "ed25519": (spell(ed25519.Ed25519PrivateKey.generate()), "P-256"),
    "public": (spell_public(ec.generate_private_key(ec.SECP256R1())), "public key"),
    "passphrase": (
        spell(ec.generate_private_key(ec.SECP256R1()), passphrase=b"x"),
        "without a passphrase",
    ),
    "rubbish": ("not a key at all", "PEM"),
    "cut": (PEM[:120], "PEM"),
}


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give what else a platform needs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAAS_SECRET_KEY", "keys-only-0123456789-abcdefghijklmnopqrstuvwxyz")
    monkeypatch.setenv("MAAS_DATABASE__URL", "postgresql://nobody@localhost:1/none")
    monkeypatch.setenv("MAAS_REDIS__URL", "redis://localhost:1/0")
    monkeypatch.setenv("MAAS_AUTH__ALGORITHM", "ES256")


def load(monkeypatch: pytest.MonkeyPatch, **variables: str | Path) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str | Path) -> str:
    with pytest.raises(InvalidSettingsError) as refused:
        load(monkeypatch, **variables)
    return "\n".join(refused.value.problems)


@pytest.mark.parametrize("case", UNFIT)
def test_a_key_that_will_not_do_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    pem, says = UNFIT[case]
    path = tmp_path / "key.pem"
    path.write_text(pem)

    texts = [refusal(monkeypatch, **{VARIABLE: pem})]
    monkeypatch.delenv(VARIABLE)
    texts.append(refusal(monkeypatch, **{f"{VARIABLE}_FILE": path}))

    for text, name in zip(texts, (VARIABLE, f"{VARIABLE}_FILE"), strict=True):
        assert f"{name}: " in text
        assert says in text
        assert pem.splitlines()[-1] not in text


@pytest.mark.parametrize("kind", ["missing", "folder", "long"])
def test_a_file_that_cannot_be_read_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "key.pem"
    if kind == "folder":
        path.mkdir()
    if kind == "long":
        path.write_bytes(b"x" * 1_000_000)

    text = refusal(monkeypatch, **{f"{VARIABLE}_FILE": path})

    assert text.startswith(f"{VARIABLE}_FILE: {path} ")


def test_no_key_at_all_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal(monkeypatch)

    assert VARIABLE in text
    assert "openssl" in text


def test_two_ways_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(PEM)

    both: dict[str, str | Path] = {VARIABLE: PEM, f"{VARIABLE}_FILE": path}
    text = refusal(monkeypatch, **both)

    assert "not both" in text


def test_a_key_on_one_line_of_a_file_of_settings_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **{VARIABLE: PEM.replace("\n", "\\n")})

    assert settings.auth.private_pem is not None


def test_the_other_key_may_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    public = spell_public(ec.generate_private_key(ec.SECP256R1()))

    settings = load(monkeypatch, **{VARIABLE: PEM, "MAAS_AUTH__PREVIOUS_KEY": public})

    assert settings.auth.previous_pem == public


def test_the_other_key_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = spell_public(ec.generate_private_key(ec.SECP384R1()))

    text = refusal(monkeypatch, **{VARIABLE: PEM, "MAAS_AUTH__PREVIOUS_KEY": wrong})

    assert text.startswith("MAAS_AUTH__PREVIOUS_KEY: ")
