"""Access tokens by ES256, and that neither algorithm's tokens pass for the other's."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jose import jwt

from maas.shared.infrastructure.auth_settings import AuthSettings
from maas.shared.infrastructure.signing_keys import generate_private_pem, read_private_pem
from maas.user.infrastructure.tokens import JoseTokenIssuer
from tests.factories.accounts import NOON, make_session
from tests.fakes.clock import FakeClock

SECRET = "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFG"
PEM, OTHER_PEM = generate_private_pem(), generate_private_pem()


def public_pem(pem: str) -> str:
    public = read_private_pem(pem).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def make_issuer(pem: str = PEM, **settings: Any) -> JoseTokenIssuer:
    return make_secret_issuer(algorithm="ES256", private_key=pem, **settings)


def make_secret_issuer(**settings: Any) -> JoseTokenIssuer:
    return JoseTokenIssuer(AuthSettings(**settings), secret_key=SECRET, clock=FakeClock(NOON))


def header_of(token: str) -> dict[str, str]:
    part = token.split(".", maxsplit=1)[0]
    header: dict[str, str] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return header


def spell(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def with_header(token: str, header: dict[str, Any]) -> str:
    """Give a token another header, its signature left off."""
    return f"{spell(header)}.{token.split('.')[1]}"


class TestSigning:
    def test_says_who_where_and_which_session(self) -> None:
        session, issuer = make_session(version=7), make_issuer()

        token = issuer.issue_access(session, at=NOON)

        claims = issuer.read_access(token)
        assert claims is not None
        assert (claims.account_id, claims.session_id) == (session.account_id, session.id)
        assert header_of(token)["alg"] == "ES256"

    def test_is_verified_by_others_with_the_published_key_alone(self) -> None:
        issuer = make_issuer()
        token = issuer.issue_access(make_session(), at=NOON)
        key = next(key for key in issuer.public_keys if key.kid == header_of(token)["kid"])
        published = {"kty": "EC", "crv": "P-256", "x": key.x, "y": key.y}

        claims = jwt.decode(
            token,
            published,
            algorithms=["ES256"],
            audience="maas-api",
            options={"verify_exp": False},
        )

        assert claims["iss"] == "maas"

    def test_names_the_key_by_its_thumbprint(self) -> None:
        key = make_issuer().public_keys[0]
        # RFC 7638, section 3: required members only, in the order of their names.
        members = f'{{"crv":"P-256","kty":"EC","x":"{key.x}","y":"{key.y}"}}'

        assert key.kid == spell(hashlib.sha256(members.encode()).digest())

    def test_with_another_key_is_nobodys(self) -> None:
        token = make_issuer(OTHER_PEM).issue_access(make_session(), at=NOON)

        assert make_issuer().read_access(token) is None

    def test_a_changed_signature_is_refused(self) -> None:
        issuer = make_issuer()
        head, payload, signature = issuer.issue_access(make_session(), at=NOON).split(".")
        changed = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]

        assert issuer.read_access(f"{head}.{payload}.{changed}") is None
        assert issuer.read_access(f"{head}.{payload}.") is None
        assert issuer.read_access(f"{head}.{payload}.{spell(bytes(64))}") is None


class TestRing:
    @pytest.mark.parametrize(
        "previous", [OTHER_PEM, public_pem(OTHER_PEM)], ids=["private", "public"]
    )
    def test_the_other_key_verifies_and_does_not_sign(self, previous: str) -> None:
        session = make_session()
        old = make_issuer(OTHER_PEM).issue_access(session, at=NOON)
        issuer = make_issuer(previous_key=previous)

        token = issuer.issue_access(session, at=NOON)

        assert issuer.read_access(old) is not None
        assert header_of(token)["kid"] == make_issuer().public_keys[0].kid
        assert len(issuer.public_keys) == 2

    def test_the_same_key_twice_is_published_once(self) -> None:
        assert len(make_issuer(previous_key=PEM).public_keys) == 1

    def test_one_keys_name_over_anothers_signature_is_refused(self) -> None:
        issuer = make_issuer(previous_key=OTHER_PEM)
        first, second = issuer.public_keys
        token = issuer.issue_access(make_session(), at=NOON)
        assert header_of(token)["kid"] == first.kid
        header = {"alg": "ES256", "typ": "at+jwt", "kid": second.kid}
        forged = f"{with_header(token, header)}.{token.split('.')[2]}"

        assert issuer.read_access(forged) is None


class TestConfusion:
    @pytest.mark.parametrize("alg", ["HS256", "ES256"])
    def test_the_public_key_is_no_secret_to_sign_with(self, alg: str) -> None:
        issuer = make_issuer()
        token = issuer.issue_access(make_session(), at=NOON)
        text = with_header(token, {"alg": alg, "typ": "at+jwt", "kid": header_of(token)["kid"]})
        secret = public_pem(PEM).encode()

        for key in (secret, secret.strip()):
            signature = spell(hmac.digest(key, text.encode(), "sha256"))
            assert issuer.read_access(f"{text}.{signature}") is None

    @pytest.mark.parametrize("alg", ["none", "None", "", None, ["ES256"], "ES384"])
    def test_no_other_algorithm_is_taken(self, alg: object) -> None:
        issuer = make_issuer()
        token = issuer.issue_access(make_session(), at=NOON)
        text = with_header(token, {"alg": alg, "typ": "at+jwt", "kid": header_of(token)["kid"]})

        assert issuer.read_access(f"{text}.") is None
        assert issuer.read_access(f"{text}.{token.split('.')[2]}") is None

    def test_a_key_of_the_other_ring_is_unknown(self) -> None:
        secret, public = make_secret_issuer(), make_issuer()
        token = public.issue_access(make_session(), at=NOON)
        secret_kid = header_of(secret.issue_access(make_session(), at=NOON))["kid"]
        text = with_header(token, {"alg": "ES256", "typ": "at+jwt", "kid": secret_kid})

        assert public.read_access(f"{text}.{token.split('.')[2]}") is None

    def test_after_a_change_of_algorithm_the_old_tokens_are_refused(self) -> None:
        session, secret, public = make_session(), make_secret_issuer(), make_issuer()

        assert public.read_access(secret.issue_access(session, at=NOON)) is None
        assert secret.read_access(public.issue_access(session, at=NOON)) is None

    def test_refresh_tokens_outlive_a_change_of_algorithm(self) -> None:
        session = make_session()
        token = make_secret_issuer().issue_refresh(session.id, 3)

        public = make_issuer()

        assert public.session_of_refresh(token) == session.id
        assert public.issue_refresh(session.id, 3) == token

    def test_a_secret_ring_publishes_nothing(self) -> None:
        assert list(make_secret_issuer().public_keys) == []

    def test_a_key_that_is_given_and_not_asked_for_changes_nothing(self) -> None:
        issuer = make_secret_issuer(private_key=PEM)

        assert header_of(issuer.issue_access(make_session(), at=NOON))["alg"] == "HS256"
        assert list(issuer.public_keys) == []
