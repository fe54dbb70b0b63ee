from typing import cast

import pytest

from maas.shared.application.ports import InvalidApiKeyError
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.user.infrastructure.key_authenticator import CredentialAuthenticator, KeyAuthenticator
from maas.user.infrastructure.key_uses import KeyUses
from tests.factories.keys import seeded_key
from tests.fakes.edge import FakeAuthenticator


class Untouchable:
    """A server that must not be asked: whatever is done with it is an error."""

    def __getattr__(self, name: str) -> object:
        message = f"it was asked for {name}"
        raise AssertionError(message)


def make_authenticator() -> KeyAuthenticator:
    return KeyAuthenticator(
        redis=cast("RedisGate", Untouchable()),
        database=cast("Database", Untouchable()),
        uses=cast("KeyUses", Untouchable()),
    )


KEY = seeded_key().text


@pytest.mark.parametrize(
    "wrong", [KEY[:-1], KEY[:-1] + ("0" if KEY[-1] != "0" else "1"), "maas_x", KEY.swapcase()]
)
async def test_a_wrong_checksum_is_refused_before_any_server_is_asked(wrong: str) -> None:
    with pytest.raises(InvalidApiKeyError):
        await make_authenticator().authenticate(wrong)


async def test_a_right_one_is_looked_up() -> None:
    with pytest.raises(AssertionError, match="it was asked for evaluate"):
        await make_authenticator().authenticate(KEY)


async def test_keys_and_tokens_go_their_own_ways() -> None:
    sessions, keys = FakeAuthenticator(), FakeAuthenticator()
    both = CredentialAuthenticator(sessions=sessions, keys=keys)

    for credential in (KEY, "maas_x", "ey.some.token"):
        with pytest.raises(Exception, match="Sign in first"):
            await both.authenticate(credential)

    assert (keys.asked, sessions.asked) == (2, 1)
