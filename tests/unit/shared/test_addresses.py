import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.shared.interface.addresses import TrustedProxies, normalise, parse_address

PROXIES = TrustedProxies(["10.0.0.0/8", "::1/128", "fd00::/8"])


class TestTrust:
    @pytest.mark.parametrize("host", ["10.1.2.3", "::1", "fd00::5", "::ffff:10.0.0.1"])
    def test_of_listed_networks(self, host: str) -> None:
        assert PROXIES.trust(host)

    @pytest.mark.parametrize("host", ["11.0.0.1", "::2", "testclient", "", None])
    def test_of_nobody_else(self, host: str | None) -> None:
        assert not PROXIES.trust(host)

    def test_of_nobody_by_default(self) -> None:
        assert not TrustedProxies([]).trust("127.0.0.1")


class TestClientBehind:
    @pytest.mark.parametrize(
        ("forwarded", "client"),
        [
            ([b"203.0.113.7"], "203.0.113.7"),
            ([b"6.6.6.6, 203.0.113.7"], "203.0.113.7"),
            ([b"6.6.6.6, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
            ([b"6.6.6.6", b"203.0.113.7", b"10.9.9.9"], "203.0.113.7"),
            ([b"203.0.113.7:4711"], "203.0.113.7"),
            ([b"[2001:db8::1]:443"], "2001:db8::1"),
            ([b"2001:db8::1"], "2001:db8::1"),
            ([b"::ffff:203.0.113.7"], "203.0.113.7"),
            ([b"6.6.6.6, garbage"], "10.0.0.1"),
            ([b"6.6.6.6, garbage, 10.0.0.2"], "10.0.0.2"),
            ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ([b""], "10.0.0.1"),
            ([b"\xff\xfe"], "10.0.0.1"),
            ([b"fe80::1%eth0"], "fe80::1"),
            ([b"fe80::1%" + b"x" * 10_000], "10.0.0.1"),
        ],
    )
    def test_is_the_first_from_the_right_that_is_no_proxy(
        self, forwarded: list[bytes], client: str
    ) -> None:
        assert PROXIES.client_behind("10.0.0.1", forwarded) == client

    def test_looks_at_a_bounded_number_of_hops(self) -> None:
        hops = b",".join([b"203.0.113.7"] + [b"10.0.0.1"] * 10_000)

        assert PROXIES.client_behind("10.0.0.1", [hops]) == "10.0.0.1"

    @given(st.lists(st.binary(max_size=60), max_size=4))
    def test_is_an_address_whatever_is_forwarded(self, forwarded: list[bytes]) -> None:
        assert parse_address(PROXIES.client_behind("10.0.0.1", forwarded)) is not None


def test_only_addresses_are_normalised() -> None:
    assert normalise("::FFFF:1.2.3.4") == "1.2.3.4"
    assert normalise("testclient") is None


@pytest.mark.parametrize("zone", ["eth0", "1", "<script>", "a b", "::1"])
def test_zones_are_left_out(zone: str) -> None:
    assert normalise(f"fe80::1%{zone}") == "fe80::1"
