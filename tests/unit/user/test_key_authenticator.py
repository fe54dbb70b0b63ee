from typing import cast

import pytest

from maas.shared.application.ports import InvalidApiKeyError
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.user.infrastructure.good_keys import MAX_REMEMBERED, REMEMBERED_SECONDS, GoodLately
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


class TestGoodLately:
    def test_is_what_was_good_within_the_hour_and_not_bad_since(self) -> None:
        now = [0.0]
        lately = GoodLately(lambda: now[0])
        for secret in (b"a", b"b"):
            lately.note(secret)
        lately.forget(b"b")
        lately.forget(b"never seen")

        now[0] = REMEMBERED_SECONDS - 1
        within = [secret in lately for secret in (b"a", b"b", b"c")]
        now[0] = REMEMBERED_SECONDS
        after = b"a" in lately

        assert within == [True, False, False]
        assert not after

    def test_is_no_more_than_fits_those_in_use_the_longest(self) -> None:
        lately = GoodLately()
        for number in range(MAX_REMEMBERED + 100):
            lately.note(b"used")
            lately.note(str(number).encode())

        assert len(lately) == MAX_REMEMBERED
        assert b"used" in lately
        assert b"0" not in lately


async def test_keys_and_tokens_go_their_own_ways() -> None:
    sessions, keys = FakeAuthenticator(), FakeAuthenticator()
    both = CredentialAuthenticator(sessions=sessions, keys=keys)

    for credential in (KEY, "maas_x", "ey.some.token"):
        with pytest.raises(Exception, match="Sign in first"):
            await both.authenticate(credential)

    assert (keys.asked, sessions.asked) == (2, 1)
