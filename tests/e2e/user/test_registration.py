"""Joining, verifying and getting back in, over HTTP, with the mails that go between."""

import email
import email.policy
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import asyncpg
import httpx
import pytest

from maas.bootstrap import Platform, acting_as_operator
from maas.shared.domain.call import current_call
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.user.application.invitations import InvitationService, IssuedInvitation
from maas.user.domain.account import EmailAddress, Username
from maas.user.domain.grants import BeyondOwnRightsError
from maas.user.wiring import send_due_mails
from tests.conftest import MakeSettings
from tests.e2e.conftest import Flush, MakePerson, serving_app, sign_in
from tests.e2e.user.keys import ask, make_key
from tests.factories.accounts import PASSWORD
from tests.fakes.edge import make_principal

pytestmark = pytest.mark.e2e

REGISTER, VERIFY = "/api/v1/auth/register", "/api/v1/auth/email/verify"
FORGOT, RESET = "/api/v1/auth/password/forgot", "/api/v1/auth/password/reset"
LOGIN, PROFILE = "/api/v1/auth/login", "/api/v1/users/profile"
NEW_PASSWORD = "another long enough phrase"
TOKEN = re.compile(r"#(?:token|invitation)=(\S+)")

Mails = Callable[[], Awaitable[list[str]]]


def body(username: str = "eve", **more: str) -> dict[str, str]:
    fields = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
    return {**fields, **more}


def token_in(mail: str) -> str:
    found = TOKEN.search(mail)
    assert found is not None, mail
    return found[1]


@pytest.fixture
def mails(settings: Settings) -> Mails:
    """Send what waits, as the Celery task does, and give the texts of all mails so far."""
    folder = Path(str(settings.data_dir))

    async def send() -> list[str]:
        await send_due_mails(settings, data_dir=folder, clock=SystemClock())
        texts = []
        for path in sorted((folder / "mail").glob("*.eml")):
            assert path.stat().st_mode & 0o077 == 0
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            content = message.get_body()
            assert content is not None
            texts.append(f"To: {message['To']}\n{content.get_content()}")
        return texts

    return send


@pytest.fixture
async def opened(
    make_settings: MakeSettings, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_app(make_settings(auth={"registration": "open"})) as client:
        yield client


@pytest.fixture
async def invited_only(
    make_settings: MakeSettings, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_app(make_settings(auth={"registration": "invitation"})) as client:
        yield client


async def invite(
    platform: Platform, *, to: str = "eve@example.com", roles: tuple[str, ...] = ("developer",)
) -> IssuedInvitation:
    invitations = platform.state["invitations"]
    assert isinstance(invitations, InvitationService)
    async with acting_as_operator(platform, "admin.created"):
        account_id = await platform.accounts.create_admin(
            username=Username("inviter"),
            email=EmailAddress("inviter@example.com"),
            password=PASSWORD,
        )
    async with acting_as_operator(platform, "invitation.created") as scope:
        principal = replace(make_principal("*:*"), account_id=account_id)
        scope.tenant_id = principal.tenant_id
        current_call().act_as(principal)
        return await invitations.invite(
            principal, email=EmailAddress(to), roles=roles, send_mail=True
        )


class TestRegister:
    async def test_is_closed_unless_set_otherwise(self, client: httpx.AsyncClient) -> None:
        answer = await client.post(REGISTER, json=body())

        assert (answer.status_code, answer.json()["code"]) == (403, "registration-closed")

    async def test_openly_waits_for_the_mail_to_be_answered(
        self, opened: httpx.AsyncClient, mails: Mails, flush: Flush, make_person: MakePerson
    ) -> None:
        answer = await opened.post(REGISTER, json=body(display_name="Eve"))
        assert (answer.status_code, answer.json()) == (202, {"status": "verify-email"})
        credentials = {"username": "eve", "password": PASSWORD}
        early = await opened.post(LOGIN, json=credentials)
        assert (early.status_code, early.json()["code"]) == (401, "invalid-credentials")

        (mail,) = await mails()
        verified = await opened.post(VERIFY, json={"token": token_in(mail)})
        again = await opened.post(VERIFY, json={"token": token_in(mail)})

        assert mail.startswith("To: eve@example.com")
        assert verified.status_code == 204
        assert (again.status_code, again.json()["code"]) == (422, "invalid-link")
        eve = await sign_in(opened, "eve")
        profile = (await opened.get(PROFILE, headers=eve.headers)).json()
        assert (profile["display_name"], profile["tenant"]) == ("Eve", "default")
        assert (await opened.get("/api/v1/audit/logs", headers=eve.headers)).status_code == 403
        ada = await make_person("ada")
        await flush()
        logs = await opened.get("/api/v1/audit/logs?action=account.*", headers=ada.headers)
        assert [item["action"] for item in logs.json()["items"]][-2:] == [
            "account.email_verified",
            "account.registered",
        ]

    async def test_a_taken_email_is_answered_alike_and_its_owner_told(
        self, opened: httpx.AsyncClient, mails: Mails, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        taken = await opened.post(REGISTER, json=body("mallory", email="ADA@example.com"))
        free = await opened.post(REGISTER, json=body("eve"))

        assert taken.status_code == free.status_code == 202
        assert taken.json() == free.json()
        texts = await mails()
        assert len(texts) == 2
        told = next(text for text in texts if "has an account already" in text)
        assert told.startswith("To: ada@example.com")
        assert TOKEN.search(told) is None

    @pytest.mark.parametrize("address", ["ada@example.com", "free@example.com"])
    async def test_a_taken_name_is_refused_whatever_the_email(
        self, opened: httpx.AsyncClient, make_person: MakePerson, address: str
    ) -> None:
        await make_person("ada")

        answer = await opened.post(REGISTER, json=body("ADA", email=address))

        assert (answer.status_code, answer.json()["code"]) == (409, "username-taken")

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"password": "short"}, "weak-password"),
            ({"email": "nowhere"}, "invalid-input"),
            ({"username": "a b"}, "invalid-input"),
        ],
    )
    async def test_wrong_fields_are_refused(
        self, opened: httpx.AsyncClient, change: dict[str, str], code: str
    ) -> None:
        answer = await opened.post(REGISTER, json=body(**change))

        assert answer.status_code == 422
        assert code in {answer.json()["code"], "invalid-input"}


class TestInvitation:
    async def test_lets_in_whom_it_was_made_for_once(
        self, invited_only: httpx.AsyncClient, platform: Platform
    ) -> None:
        issued = await invite(platform)
        without = await invited_only.post(REGISTER, json=body())
        other = await invited_only.post(REGISTER, json=body("mallory", invitation=issued.token))

        joined = await invited_only.post(REGISTER, json=body(invitation=issued.token))
        again = await invited_only.post(
            REGISTER, json=body("eve2", email="eve@example.com", invitation=issued.token)
        )

        assert (without.status_code, without.json()["code"]) == (403, "invitation-required")
        assert (other.status_code, other.json()["code"]) == (422, "invalid-invitation")
        assert (joined.status_code, joined.json()) == (202, {"status": "ready"})
        assert (again.status_code, again.json()["code"]) == (422, "invalid-invitation")
        eve = await sign_in(invited_only, "eve")
        models = await invited_only.post(
            "/api/v1/models", json={"name": "m", "framework": "other"}, headers=eve.headers
        )
        assert models.status_code == 201

    async def test_the_mailed_link_works_as_well(
        self, invited_only: httpx.AsyncClient, platform: Platform, mails: Mails
    ) -> None:
        issued = await invite(platform)
        (mail,) = await mails()
        assert token_in(mail) != issued.token

        joined = await invited_only.post(REGISTER, json=body(invitation=token_in(mail)))

        assert joined.status_code == 202

    async def test_gives_no_more_than_its_maker_holds(self, platform: Platform) -> None:
        with pytest.raises(BeyondOwnRightsError):
            await invite(platform, roles=("platform_admin",))


class TestReset:
    async def test_sets_a_new_password_and_ends_every_session_and_key(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        mails: Mails,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        other = await sign_in(client, "ada")
        for person in (ada, other):
            assert (await client.get(PROFILE, headers=person.headers)).status_code == 200
        key = (await make_key(client, ada))["key"]
        assert await ask(client, key) == 200
        await client.post(FORGOT, json={"email": "ADA@example.com"})
        (mail,) = await mails()
        token = token_in(mail)
        stored = await superuser.fetchval("SELECT jsonb_agg(to_jsonb(l))::text FROM link_tokens l")
        assert token not in stored

        weak = await client.post(RESET, json={"token": token, "new_password": "short"})
        done = await client.post(RESET, json={"token": token, "new_password": NEW_PASSWORD})
        again = await client.post(RESET, json={"token": token, "new_password": NEW_PASSWORD})

        assert (weak.status_code, weak.json()["code"]) == (422, "weak-password")
        assert done.status_code == 204
        assert (again.status_code, again.json()["code"]) == (422, "invalid-link")
        for person in (ada, other):
            assert (await client.get(PROFILE, headers=person.headers)).status_code == 401
        assert await ask(client, key) == 401
        old = await client.post(LOGIN, json={"username": "ada", "password": PASSWORD})
        assert old.status_code == 401
        await sign_in(client, "ada", NEW_PASSWORD)
        told = [text for text in await mails() if "was set anew" in text]
        assert len(told) == 1
        assert await superuser.fetchval("SELECT count(*) FROM link_tokens") == 0
        assert await superuser.fetchval("SELECT count(*) FROM outgoing_mails") == 0

    async def test_forgot_answers_alike_and_writes_to_members_only(
        self, client: httpx.AsyncClient, make_person: MakePerson, mails: Mails
    ) -> None:
        await make_person("ada")

        known = await client.post(FORGOT, json={"email": "ada@example.com"})
        unknown = await client.post(FORGOT, json={"email": "nobody@example.com"})

        assert known.status_code == unknown.status_code == 202
        assert known.content == unknown.content
        assert sorted(known.headers) == sorted(unknown.headers)
        assert len(await mails()) == 1

    async def test_asking_again_and_again_brings_three_links_an_hour(
        self, client: httpx.AsyncClient, make_person: MakePerson, mails: Mails
    ) -> None:
        await make_person("ada")
        for _ in range(5):
            for _ in range(2):
                await client.post(FORGOT, json={"email": "ada@example.com"})
            await mails()

        assert len(await mails()) == 3

    async def test_a_link_too_old_or_of_a_suspended_account_is_none(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        mails: Mails,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        await make_person("ada")
        await client.post(FORGOT, json={"email": "ada@example.com"})
        token = token_in((await mails())[0])
        await superuser.execute("UPDATE accounts SET status = 'suspended'")
        suspended = await client.post(RESET, json={"token": token, "new_password": NEW_PASSWORD})
        await superuser.execute("UPDATE accounts SET status = 'active'")
        await superuser.execute("UPDATE link_tokens SET expires_at = now()")

        late = await client.post(RESET, json={"token": token, "new_password": NEW_PASSWORD})

        assert suspended.json()["code"] == late.json()["code"] == "invalid-link"
        await sign_in(client, "ada")

    async def test_of_an_account_never_verified_leaves_no_password_of_somebody_elses(
        self, opened: httpx.AsyncClient, mails: Mails
    ) -> None:
        """Whoever registers another's address first must not get in once its owner does."""
        await opened.post(REGISTER, json=body("squatter", email="victim@example.com"))
        await mails()
        await opened.post(FORGOT, json={"email": "victim@example.com"})
        link = next(mail for mail in await mails() if "new password" in mail)

        reset = await opened.post(
            RESET, json={"token": token_in(link), "new_password": NEW_PASSWORD}
        )
        squatter = await opened.post(LOGIN, json={"username": "squatter", "password": PASSWORD})

        assert reset.status_code == 204
        assert squatter.status_code == 401
        await sign_in(opened, "squatter", NEW_PASSWORD)

    async def test_a_link_for_one_purpose_is_none_for_another(
        self, client: httpx.AsyncClient, make_person: MakePerson, mails: Mails
    ) -> None:
        await make_person("ada")
        await client.post(FORGOT, json={"email": "ada@example.com"})

        answer = await client.post(VERIFY, json={"token": token_in((await mails())[0])})

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-link")
