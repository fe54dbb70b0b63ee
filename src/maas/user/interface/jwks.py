"""The public half of the keys that sign access tokens (RFC 7517), at the place programs look."""

from collections.abc import Sequence
from typing import Literal, cast

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from maas.shared.interface.types import ReadModel
from maas.user.application.public_keys import PublicKey

MAX_AGE_SECONDS = 300
"""How long readers may keep the set: a new key is published for longer before it signs."""

router = APIRouter(tags=["auth"])


class PublicKeyRead(ReadModel):
    kty: Literal["EC"]
    crv: Literal["P-256"]
    alg: Literal["ES256"]
    use: Literal["sig"]
    kid: str
    x: str
    y: str


class KeySetRead(ReadModel):
    """Empty where tokens are signed with HS256, whose key is nobody else's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "keys": [
                        {
                            "kty": "EC",
                            "crv": "P-256",
                            "alg": "ES256",
                            "use": "sig",
                            "kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
                            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
                        }
                    ]
                }
            ]
        }
    )

    keys: list[PublicKeyRead]


@router.get(
    "/.well-known/jwks.json",
    summary="Read the public keys that access tokens are signed with",
    description=(
        "Empty where tokens are signed with HS256. Keep it no longer than `Cache-Control` says: "
        "a new key stands here for longer before it signs."
    ),
)
async def get_public_keys(request: Request, response: Response) -> KeySetRead:
    keys = cast("Sequence[PublicKey]", request.scope["state"]["public_keys"])
    response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    return KeySetRead(keys=[_render(key) for key in keys])


def _render(key: PublicKey) -> PublicKeyRead:
    return PublicKeyRead(
        kty="EC", crv="P-256", alg="ES256", use="sig", kid=key.kid, x=key.x, y=key.y
    )
