from dataclasses import replace
from ipaddress import ip_network

import pytest

from maas.shared.domain.ids import ApiKeyId, new_id
from maas.shared.domain.principal import KeyLimits, Principal, covers, meet
from tests.fakes.edge import make_principal


@pytest.mark.parametrize(
    ("granted", "wanted"),
    [
        ("model:read", "model:read"),
        ("model:*", "model:delete"),
        ("*:read", "model:read"),
        ("*:*", "model:delete"),
        ("platform:*", "platform:metrics"),
        ("platform:metrics", "platform:metrics"),
    ],
)
def test_covers(granted: str, wanted: str) -> None:
    assert covers(frozenset({granted}), wanted)


@pytest.mark.parametrize(
    ("granted", "wanted"),
    [
        ("model:read", "model:write"),
        ("model:read", "models:read"),
        ("models:*", "model:read"),
        ("*:read", "model:write"),
        ("*:*", "platform:metrics"),
        ("*:metrics", "platform:metrics"),
        ("platform:tenants", "platform:metrics"),
        ("model", "model:read"),
        ("*", "model:read"),
        ("", "model:read"),
    ],
)
def test_does_not_cover(granted: str, wanted: str) -> None:
    assert not covers(frozenset({granted}), wanted)


def test_nothing_covers_nothing() -> None:
    assert not covers(frozenset(), "model:read")


@pytest.mark.parametrize(
    ("scope", "right", "met"),
    [
        ("model:read", "model:read", {"model:read"}),
        ("model:read", "*:*", {"model:read"}),
        ("model:*", "model:read", {"model:read"}),
        ("*:*", "model:read", {"model:read"}),
        ("*:read", "model:*", {"model:read"}),
        ("*:read", "*:*", {"*:read"}),
        ("user:write", "*:*", {"user:write"}),
        ("user:*", "user:read", {"user:read"}),
        ("platform:*", "platform:tenant-read", {"platform:tenant-read"}),
        ("model:read", "model:write", set()),
        ("model:read", "user:read", set()),
        ("*:*", "user:write", set()),
        ("*:*", "self:write", set()),
        ("*:*", "api_key:write", set()),
        ("*:write", "role:*", set()),
        ("*:*", "platform:*", set()),
        ("platform:tenant-read", "*:*", set()),
    ],
)
def test_a_key_may_what_scope_and_right_both_say(scope: str, right: str, met: set[str]) -> None:
    assert meet([scope], [right]) == met


def make_key_principal(*permissions: str) -> Principal:
    return replace(make_principal(*permissions), api_key_id=ApiKeyId(new_id()))


def test_a_wildcard_lets_a_key_manage_no_access() -> None:
    key = make_key_principal("*:*")

    managing = ["api_key:write", "service_account:write", "user:write", "role:grant", "self:write"]
    assert key.may("model:delete")
    assert [permission for permission in managing if key.may(permission)] == []
    assert make_principal("*:*").may("user:write")
    assert make_key_principal("*:*", "user:write").may("user:write")


def test_a_key_passes_on_only_what_is_named() -> None:
    assert make_key_principal("*:*", "role:write").grantable == {"role:write"}
    limited = replace(make_key_principal("role:write"), key_limits=KeyLimits(requests_per_minute=5))
    assert limited.grantable == frozenset(), "whoever received it would not be bound"
    assert make_principal("*:*").grantable == {"*:*"}


class TestKeyLimits:
    def test_addresses_lie_within_one_of_the_networks(self) -> None:
        limits = KeyLimits(networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))

        assert limits.allows_address("192.0.2.200")
        assert limits.allows_address("2001:db8:1::1")
        assert not limits.allows_address("192.0.3.1")
        assert not limits.allows_address("testclient")
        assert not limits.allows_address(None)

    def test_nothing_is_bound_unless_told(self) -> None:
        assert KeyLimits().allows_address(None)
        assert KeyLimits().allows_model("any")
        assert not KeyLimits(models=frozenset({"org/one"})).allows_model("org/other")


def test_a_repeated_call_is_the_credentials_own() -> None:
    person, key = make_principal("model:read"), make_key_principal("model:read")

    assert person.credential_id == person.account_id
    assert key.credential_id == key.api_key_id != key.account_id
