"""Access and refresh tokens. The only module that knows the JWT library."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jose import jwk, jwt
from jose.backends.base import Key
from jose.exceptions import JOSEError

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId, SessionId, TenantId, new_id
from maas.shared.infrastructure.auth_settings import AuthSettings
from maas.shared.infrastructure.signing_keys import read_private_pem, read_public_pem
from maas.user.application.ports import AccessClaims
from maas.user.application.public_keys import PublicKey
from maas.user.domain.session import Session

TOKEN_TYPE = "at+jwt"  # noqa: S105  RFC 9068's media type
REFRESH_PREFIX = "mrt_"
REFRESH_HEAD_BYTES = 16 + 8
LEEWAY_SECONDS = 30
MAX_TOKEN_BYTES = 4096
MAX_HEADER_CHARS = 512
MAX_CACHED = 8192
_HEADER_NAMES = {"alg", "typ", "kid"}
_CLAIM_NAMES = {"exp", "iat", "iss", "aud", "sub", "sid", "tid", "jti", "ver"}


def derive_key(secret: str, purpose: str) -> bytes:
    """Derive a 32-byte key of one purpose, so that no two uses share a key."""
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"maas:v1:{purpose}".encode())
    return hkdf.derive(secret.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ring:
    """The keys of one algorithm; a token that names another algorithm finds none here."""

    algorithm: str
    signing_id: str
    signing_key: Key
    verifying: Mapping[str, Key]
    published: Sequence[PublicKey] = ()


class JoseTokenIssuer:
    """Access tokens by HS256 or ES256, and derived refresh tokens; two keys in either ring.

    Verified access tokens are remembered until they expire: that spares the signature check, and
    says nothing of the session, which is looked up every time.
    """

    def __init__(self, settings: AuthSettings, *, secret_key: str, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        secrets = [secret_key]
        if settings.previous_secret_key is not None:
            secrets.append(settings.previous_secret_key.get_secret_value())
        pem = settings.private_pem if settings.algorithm == "ES256" else None
        self._ring = (
            _secret_ring([derive_key(secret, "access-token") for secret in secrets])
            if pem is None
            else _public_ring(pem, settings.previous_pem)
        )
        self._refresh_keys = [derive_key(secret, "refresh-token") for secret in secrets]
        self._verified: dict[str, AccessClaims] = {}

    @property
    def public_keys(self) -> Sequence[PublicKey]:
        """What others verify our access tokens with; nothing where only we can."""
        return self._ring.published

    def issue_access(self, session: Session, *, at: datetime) -> str:
        issued = int(at.timestamp())
        claims = {
            "iss": self._settings.issuer,
            "aud": self._settings.audience,
            "sub": str(session.account_id),
            "sid": str(session.id),
            "tid": str(session.tenant_id),
            "ver": session.version,
            "jti": new_id().hex,
            "iat": issued,
            "exp": issued + round(self._settings.access_token_lifetime.total_seconds()),
        }
        ring = self._ring
        headers = {"typ": TOKEN_TYPE, "kid": ring.signing_id}
        token = jwt.encode(claims, ring.signing_key, algorithm=ring.algorithm, headers=headers)
        return str(token)

    def read_access(self, token: str) -> AccessClaims | None:
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            if claims is None:
                return None
            if len(self._verified) >= MAX_CACHED:
                self._verified.clear()
            self._verified[token] = claims
        if self._clock.now().timestamp() > claims.expires_at + LEEWAY_SECONDS:
            self._verified.pop(token, None)
            return None
        return claims

    def _verify(self, token: str) -> AccessClaims | None:
        key = self._find_key(token)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[self._ring.algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                # Times are checked below, by our clock.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            return self._strictly(claims)
        except (JOSEError, ValueError, TypeError, OverflowError, RecursionError):
            # The library lets odd claim values out as the errors they cause.
            return None

    def _find_key(self, token: str) -> Key | None:
        """Look at the header before the library does; it accepts more than we issue."""
        parts = token.split(".")
        if len(token) > MAX_TOKEN_BYTES or len(parts) != 3 or len(parts[0]) > MAX_HEADER_CHARS:  # noqa: PLR2004  header, payload, signature
            return None
        try:
            header = json.loads(_unbase64(parts[0]))
        except (ValueError, RecursionError):
            return None
        if not isinstance(header, dict) or set(header) != _HEADER_NAMES:
            return None
        if header["alg"] != self._ring.algorithm or header["typ"] != TOKEN_TYPE:
            return None
        kid = header["kid"]
        return self._ring.verifying.get(kid) if isinstance(kid, str) else None

    def _strictly(self, claims: dict[str, object]) -> AccessClaims | None:
        issued, expires, version = claims.get("iat"), claims.get("exp"), claims.get("ver")
        if set(claims) != _CLAIM_NAMES or not (
            type(issued) is int and type(expires) is int and type(version) is int
        ):
            return None
        lifetime = self._settings.access_token_lifetime.total_seconds()
        if not 0 < expires - issued <= lifetime:
            return None
        if issued > self._clock.now().timestamp() + LEEWAY_SECONDS:
            return None
        return AccessClaims(
            account_id=AccountId(UUID(str(claims["sub"]))),
            session_id=SessionId(UUID(str(claims["sid"]))),
            tenant_id=TenantId(UUID(str(claims["tid"]))),
            version=version,
            expires_at=expires,
        )

    def issue_refresh(self, session_id: SessionId, generation: int) -> str:
        return _spell_refresh(self._refresh_keys[0], session_id, generation)

    def repeat_refresh(self, session_id: SessionId, generation: int, *, token_hash: bytes) -> str:
        made = (_spell_refresh(key, session_id, generation) for key in self._refresh_keys)
        # With its key gone from the ring the token cannot be made again; the newest key's is as
        # good as none then, and the next refresh asks to sign in.
        return next(
            (token for token in made if self.hash_refresh(token) == token_hash),
            self.issue_refresh(session_id, generation),
        )

    def hash_refresh(self, token: str) -> bytes:
        return hashlib.sha256(token.encode()).digest()

    def session_of_refresh(self, token: str) -> SessionId | None:
        if not token.startswith(REFRESH_PREFIX) or not token.isascii():
            return None
        try:
            decoded = _unbase64(token.removeprefix(REFRESH_PREFIX))
        except ValueError:
            return None
        head, proof = decoded[:REFRESH_HEAD_BYTES], decoded[REFRESH_HEAD_BYTES:]
        is_ours = any(
            hmac.compare_digest(hmac.digest(key, head, "sha256"), proof)
            for key in self._refresh_keys
        )
        return SessionId(UUID(bytes=head[:16])) if is_ours else None


def _spell_refresh(key: bytes, session_id: SessionId, generation: int) -> str:
    """Write session, generation and a proof that we did: nobody else can make one up."""
    head = session_id.bytes + generation.to_bytes(REFRESH_HEAD_BYTES - 16, "big")
    proof = hmac.digest(key, head, "sha256")
    return REFRESH_PREFIX + base64.urlsafe_b64encode(head + proof).decode()


def _secret_ring(keys: Sequence[bytes]) -> _Ring:
    made = {_key_id(key): jwk.construct(key, "HS256") for key in keys}
    signing_id = _key_id(keys[0])
    return _Ring(
        algorithm="HS256",
        signing_id=signing_id,
        signing_key=made[signing_id],
        verifying=made,
    )


def _public_ring(pem: str, other_pem: str | None) -> _Ring:
    private = read_private_pem(pem)
    public = [private.public_key()]
    if other_pem is not None:
        public.append(read_public_pem(other_pem))
    published = {key.kid: key for key in map(_publish, public)}
    return _Ring(
        algorithm="ES256",
        signing_id=_publish(public[0]).kid,
        signing_key=_construct(private),
        verifying={_publish(key).kid: _construct(key) for key in public},
        published=list(published.values()),
    )


def _construct(key: EllipticCurvePrivateKey | EllipticCurvePublicKey) -> Key:
    return jwk.construct(key, "ES256")  # type: ignore[arg-type]  # the stub knows of text only


def _publish(key: EllipticCurvePublicKey) -> PublicKey:
    point = key.public_numbers()
    x, y = (_base64(number.to_bytes(32, "big")) for number in (point.x, point.y))
    # RFC 7638: the required members, in the order of their names, and no blanks.
    members = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    return PublicKey(kid=_base64(hashlib.sha256(members.encode()).digest()), x=x, y=y)


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"kid" + key).hexdigest()[:16]


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as exc:
        raise ValueError(str(exc)) from exc
