import httpx
import pytest
from jose import jwt

from maas.bootstrap import Platform, acting_as_operator
from maas.shared.infrastructure.signing_keys import generate_private_pem
from maas.user.domain.account import EmailAddress, Username
from tests.conftest import MakeSettings
from tests.e2e.conftest import serving_app, sign_in
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

JWKS, PROFILE = "/.well-known/jwks.json", "/api/v1/users/profile"


async def make_ada(platform: Platform) -> None:
    async with acting_as_operator(platform, "admin.created"):
        await platform.accounts.create_admin(
            username=Username("ada"), email=EmailAddress("ada@example.com"), password=PASSWORD
        )


async def test_a_secret_key_is_nobodys_to_read(client: httpx.AsyncClient) -> None:
    answer = await client.get(JWKS)

    assert answer.status_code == 200
    assert answer.json() == {"keys": []}
    assert answer.headers["cache-control"] == "public, max-age=300"


async def test_whoever_reads_the_keys_can_verify_a_token(
    make_settings: MakeSettings, platform: Platform
) -> None:
    await make_ada(platform)
    keys = {"private_key": generate_private_pem(), "previous_key": generate_private_pem()}
    settings = make_settings(auth={"algorithm": "ES256", **keys})
    async with serving_app(settings) as client:
        ada = await sign_in(client, "ada")

        answer = await client.get(JWKS)

        assert (await client.get(PROFILE, headers=ada.headers)).status_code == 200
    kid = jwt.get_unverified_header(ada.access_token)["kid"]
    published = {key["kid"]: key for key in answer.json()["keys"]}
    claims = jwt.decode(
        ada.access_token, published[kid], algorithms=["ES256"], audience="maas-api", issuer="maas"
    )
    assert claims["sid"]
    assert len(published) == 2
    assert not any("d" in key for key in published.values())


async def test_after_a_change_of_algorithm_one_refreshes_and_goes_on(
    client: httpx.AsyncClient, make_settings: MakeSettings, platform: Platform
) -> None:
    await make_ada(platform)
    ada = await sign_in(client, "ada")
    settings = make_settings(auth={"algorithm": "ES256", "private_key": generate_private_pem()})

    async with serving_app(settings) as changed:
        refused = await changed.get(PROFILE, headers=ada.headers)
        refreshed = await changed.post(
            "/api/v1/auth/refresh", json={"refresh_token": ada.refresh_token}
        )
        bearer = {"Authorization": f"Bearer {refreshed.json()['access_token']}"}
        accepted = await changed.get(PROFILE, headers=bearer)

    assert [answer.status_code for answer in (refused, refreshed, accepted)] == [401, 200, 200]
