"""Every field of every aggregate survives being saved and loaded."""

from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from datetime import timedelta

import pytest

from maas.audit.public import audit_scope
from maas.bootstrap import open_platform
from maas.shared.domain.call import serving
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.user.application.errors import EmailTakenError, UsernameTakenError
from maas.user.application.ports import UserUnitOfWork
from maas.user.domain.account import EmailAddress, Username
from tests.factories.accounts import NOON, make_account, make_session
from tests.fakes.recorder import make_call

pytestmark = pytest.mark.integration


@pytest.fixture
async def unit_of_work(
    settings: Settings, database: Database
) -> AsyncIterator[Callable[[], UserUnitOfWork]]:
    async with open_platform(settings) as platform:
        yield platform.accounts.unit_of_work


def values_of(aggregate: object) -> dict[str, object]:
    return {field.name: getattr(aggregate, field.name) for field in fields(aggregate)}  # type: ignore[arg-type]  # a dataclass


class TestSaveAndLoad:
    async def test_an_account(self, unit_of_work: Callable[[], UserUnitOfWork]) -> None:
        account = make_account(
            password_change_required=True,
            last_tenant_id=DEFAULT_TENANT_ID,
            updated_at=NOON + timedelta(microseconds=1),
        )
        saved = values_of(account)
        with serving(make_call()):
            async with audit_scope("account.created"), unit_of_work() as uow:
                uow.accounts.add(account)
                await uow.commit()
            async with unit_of_work() as uow:
                loaded = await uow.accounts.get(account.id)

        assert values_of(loaded) == saved

    async def test_a_session(self, unit_of_work: Callable[[], UserUnitOfWork]) -> None:
        account = make_account()
        session = make_session(
            account_id=account.id,
            previous_hash=b"before",
            revoked_at=NOON,
            revoked_reason="logout",
            address="2001:db8::1",
            user_agent="curl/8",
        )
        saved = values_of(session)
        with serving(make_call()):
            async with audit_scope("auth.login"), unit_of_work() as uow:
                uow.accounts.add(account)
                await uow.commit()
            async with audit_scope("auth.login"), unit_of_work() as uow:
                uow.sessions.add(session)
                await uow.commit()
            async with unit_of_work() as uow:
                loaded = await uow.sessions.find_locked(session.id)

        assert {**values_of(loaded), "address": str(loaded.address)} == saved  # type: ignore[union-attr]  # it was saved


class TestUniqueness:
    @pytest.mark.parametrize(
        ("second", "error"),
        [
            ({"username": Username("ADA"), "email": EmailAddress("b@b.de")}, UsernameTakenError),
            (
                {"username": Username("bob"), "email": EmailAddress("ADA@example.com")},
                EmailTakenError,
            ),
        ],
    )
    async def test_a_name_or_address_is_taken_whatever_its_case(
        self,
        unit_of_work: Callable[[], UserUnitOfWork],
        second: dict[str, object],
        error: type[Exception],
    ) -> None:
        with serving(make_call()):
            async with audit_scope("account.created"), unit_of_work() as uow:
                uow.accounts.add(make_account(email=EmailAddress("ADA@example.com")))
                await uow.commit()
            async with unit_of_work() as uow:
                uow.accounts.add(make_account(**second))
                with pytest.raises(error):
                    await uow.commit()
