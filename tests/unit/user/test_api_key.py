from datetime import datetime, timedelta

import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, ApiKeyId, new_id
from maas.user.domain.api_key import (
    ApiKey,
    InvalidExpiryError,
    InvalidNetworkError,
    Network,
    RotationUnderWayError,
)
from maas.user.domain.key_text import NewKey
from tests.factories.accounts import NOON
from tests.factories.keys import seeded_key

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def secret(seed: int) -> NewKey:
    return seeded_key(seed, public_id="abcdefgh")


def make_api_key(first: NewKey) -> ApiKey:
    account_id = AccountId(new_id())
    return ApiKey(
        id=ApiKeyId(new_id()),
        tenant_id=DEFAULT_TENANT_ID,
        account_id=account_id,
        service_account_id=None,
        public_id=first.public_id,
        prefix=first.prefix,
        name="a key",
        scopes=["model:read"],
        allowed_networks=None,
        allowed_models=None,
        requests_per_minute=None,
        secret_hash=first.secret_hash,
        is_secret_used=True,
        previous_hash=None,
        previous_valid_until=None,
        rotated_at=None,
        expires_at=NOON + 90 * DAY,
        last_used_at=None,
        created_by=account_id,
        created_by_key=None,
        created_at=NOON,
        updated_at=NOON,
    )


class TestRotation:
    def test_keeps_the_one_before_for_the_grace(self) -> None:
        first, second = secret(1), secret(2)
        key = make_api_key(first)

        key.rotate(second, grace=DAY, at=NOON)

        assert (key.secret_hash, key.previous_hash) == (second.secret_hash, first.secret_hash)
        assert key.previous_valid_until == NOON + DAY
        assert not key.is_secret_used
        assert key.auth_version == 2

    def test_replaces_a_successor_that_nobody_used(self) -> None:
        first, lost, third = secret(1), secret(2), secret(3)
        key = make_api_key(first)
        key.rotate(lost, grace=HOUR, at=NOON)

        key.rotate(third, grace=DAY, at=NOON + HOUR / 2)

        assert (key.secret_hash, key.previous_hash) == (third.secret_hash, first.secret_hash)
        assert key.previous_valid_until == NOON + HOUR, "a window only gets shorter"

    def test_waits_while_both_are_in_use(self) -> None:
        key = make_api_key(secret(1))
        key.rotate(secret(2), grace=HOUR, at=NOON)
        key.is_secret_used = True

        with pytest.raises(RotationUnderWayError):
            key.rotate(secret(3), grace=HOUR, at=NOON + HOUR / 2)

        key.rotate(secret(3), grace=HOUR, at=NOON + HOUR)
        assert key.previous_hash == secret(2).secret_hash

    def test_without_grace_ends_both_at_any_time(self) -> None:
        key = make_api_key(secret(1))
        key.rotate(secret(2), grace=HOUR, at=NOON)
        key.is_secret_used = True

        key.rotate(secret(3), grace=timedelta(0), at=NOON)

        assert (key.secret_hash, key.previous_hash) == (secret(3).secret_hash, None)
        assert key.previous_valid_until is None


class TestExpiry:
    @pytest.mark.parametrize("moment", [NOON, NOON - HOUR, NOON + 367 * DAY])
    def test_lies_within_a_year_from_now(self, moment: datetime) -> None:
        with pytest.raises(InvalidExpiryError):
            make_api_key(secret(1)).expire_at(moment, at=NOON)


class TestNetwork:
    @pytest.mark.parametrize(
        ("text", "spelled"),
        [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:DB8::/32", "2001:db8::/32"),
        ],
    )
    def test_has_one_spelling(self, text: str, spelled: str) -> None:
        assert str(Network(text)) == spelled

    @pytest.mark.parametrize(
        "text",
        [
            *("", "office", "192.0.2", "192.0.2.0/33", "fe80::1%eth0", "::ffff:1.2.3.4"),
            # A part that names a machine: which of the two was meant?
            *("192.0.2.7/24", "2001:db8::1/32"),
        ],
    )
    def test_what_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidNetworkError):
            Network(text)
