import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from jose import jwt

from maas.shared.infrastructure.auth_settings import AuthSettings
from maas.user.infrastructure.tokens import JoseTokenIssuer, derive_key
from tests.factories.accounts import NOON, make_session
from tests.fakes.clock import FakeClock

SECRET = "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFG"
OTHER_SECRET = "another-0123456789-abcdefghijklmnopqrstuvwxyz"


def make_issuer(clock: FakeClock | None = None, **settings: Any) -> JoseTokenIssuer:
    return JoseTokenIssuer(
        AuthSettings(**settings), secret_key=SECRET, clock=clock or FakeClock(NOON)
    )


def forge(issuer: JoseTokenIssuer, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Sign with the right key what we would not have issued; `None` leaves a claim out."""
    session = make_session()
    whole = {
        "iss": "maas",
        "aud": "maas-api",
        "sub": str(session.account_id),
        "sid": str(session.id),
        "tid": str(session.tenant_id),
        "ver": 1,
        "jti": "x",
        "iat": int(NOON.timestamp()),
        "exp": int(NOON.timestamp()) + 600,
    } | claims
    kept = {name: value for name, value in whole.items() if value is not None}
    headers = {"typ": "at+jwt", "kid": issuer._ring.signing_id} | (header or {})
    key = derive_key(SECRET, "access-token")
    return str(jwt.encode(kept, key, algorithm="HS256", headers=headers))


class TestAccessToken:
    def test_says_who_where_and_which_session(self) -> None:
        session = make_session(version=7)
        issuer = make_issuer()

        claims = issuer.read_access(issuer.issue_access(session, at=NOON))

        assert claims is not None
        assert claims.account_id == session.account_id
        assert claims.session_id == session.id
        assert claims.tenant_id == session.tenant_id
        assert claims.version == 7

    def test_dies_of_age_even_when_it_was_verified_before(self) -> None:
        clock = FakeClock(NOON)
        issuer = make_issuer(clock)
        token = issuer.issue_access(make_session(), at=NOON)
        assert issuer.read_access(token) is not None

        clock.move(timedelta(minutes=10, seconds=31))

        assert issuer.read_access(token) is None

    def test_the_previous_key_still_verifies(self) -> None:
        old = JoseTokenIssuer(AuthSettings(), secret_key=OTHER_SECRET, clock=FakeClock(NOON))
        token = old.issue_access(make_session(), at=NOON)

        assert make_issuer(previous_secret_key=OTHER_SECRET).read_access(token) is not None
        assert make_issuer().read_access(token) is None

    def test_what_the_forger_signs_unchanged_is_accepted(self) -> None:
        issuer = make_issuer()

        assert issuer.read_access(forge(issuer)) is not None

    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": None},
            {"iat": None},
            {"sid": None},
            {"ver": None},
            {"ver": "1"},
            {"ver": True},
            {"sub": "nobody"},
            {"aud": "another"},
            {"iss": "another"},
            {"exp": int(NOON.timestamp()) + 86_400},
            {"exp": 10**400},
            {"exp": "soon"},
            {"iat": int(NOON.timestamp()) + 120, "exp": int(NOON.timestamp()) + 300},
            {"admin": True},
        ],
    )
    def test_claims_that_are_not_ours_are_refused(self, claims: dict[str, Any]) -> None:
        issuer = make_issuer()

        assert issuer.read_access(forge(issuer, **claims)) is None

    @pytest.mark.parametrize(
        "header", [{"typ": "JWT"}, {"kid": "another"}, {"crit": ["x"]}, {"kid": ["a"]}]
    )
    def test_headers_that_are_not_ours_are_refused(self, header: dict[str, Any]) -> None:
        issuer = make_issuer()

        assert issuer.read_access(forge(issuer, header=header)) is None

    @pytest.mark.parametrize(
        "token",
        ["", ".", "..", "a.b", "a.b.c", "a" * 5000, "é.é.é", "[" * 400 + ".x.y", "e30.e30.e30"],
    )
    def test_rubbish_is_refused(self, token: str) -> None:
        assert make_issuer().read_access(token) is None

    def test_an_unsigned_token_is_refused(self) -> None:
        issuer = make_issuer()
        _, payload, _ = forge(issuer).split(".")
        none = {"alg": "none", "typ": "at+jwt", "kid": issuer._ring.signing_id}
        header = base64.urlsafe_b64encode(json.dumps(none).encode()).decode().rstrip("=")

        assert issuer.read_access(f"{header}.{payload}.") is None

    def test_a_changed_payload_is_refused(self) -> None:
        issuer = make_issuer()
        head, payload, signature = forge(issuer).split(".")
        changed = payload[:-2] + ("AA" if payload[-2:] != "AA" else "BB")

        assert issuer.read_access(f"{head}.{changed}.{signature}") is None


class TestRefreshToken:
    def test_is_the_same_for_the_same_generation_and_tells_its_session(self) -> None:
        issuer, session = make_issuer(), make_session()

        token = issuer.issue_refresh(session.id, 1)

        assert token == issuer.issue_refresh(session.id, 1)
        assert token != issuer.issue_refresh(session.id, 2)
        assert issuer.session_of_refresh(token) == session.id

    def test_knowing_the_session_is_not_enough_to_make_one(self) -> None:
        session = make_session()
        head = session.id.bytes + (1).to_bytes(8, "big")
        forged = "mrt_" + base64.urlsafe_b64encode(head + b"x" * 32).decode()

        assert make_issuer().session_of_refresh(forged) is None

    def test_one_wrong_letter_makes_it_nobodys(self) -> None:
        issuer, session = make_issuer(), make_session()
        token = issuer.issue_refresh(session.id, 1)
        wrong = token[:30] + ("A" if token[30] != "A" else "B") + token[31:]

        assert issuer.session_of_refresh(wrong) is None

    def test_survives_a_change_of_key(self) -> None:
        session = make_session()
        old = JoseTokenIssuer(AuthSettings(), secret_key=OTHER_SECRET, clock=FakeClock(NOON))
        token = old.issue_refresh(session.id, 3)
        issuer = make_issuer(previous_secret_key=OTHER_SECRET)

        again = issuer.repeat_refresh(session.id, 3, token_hash=issuer.hash_refresh(token))

        assert issuer.session_of_refresh(token) == session.id
        assert again == token

    @pytest.mark.parametrize("token", ["", "mrt_", "mrt_AAAA", "xyz", "mrt_é", "mrt_" + "A" * 500])
    def test_rubbish_belongs_to_no_session(self, token: str) -> None:
        assert make_issuer().session_of_refresh(token) is None
