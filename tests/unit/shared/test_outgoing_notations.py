"""Every way to write an address that is not public, in a URL and as what a name leads to."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.shared.infrastructure.outgoing_targets import RefusedTargetError, Targets, is_public
from tests.notations import INSIDE, INSIDE_6, dotted, plain_forms, wrapped_forms

TARGETS = Targets()

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255"),
    *("169.253.255.255", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.167.255.255"),
    *("198.17.255.255", "198.20.0.1", "223.255.255.255", "168.63.129.15", "168.63.129.17"),
    *("2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "2001:200::1"),
    *("64:ff9b::101:101", "2606:4700::5efe:101:101"),
]


def is_refused(host: str) -> bool:
    try:
        TARGETS.check(f"https://{host}/v1")
    except RefusedTargetError:
        return True
    return False


@pytest.mark.parametrize("inside", INSIDE)
class TestIPv4:
    def test_is_refused_in_a_url(self, inside: str) -> None:
        assert is_refused(inside)

    def test_is_refused_however_it_is_spelled(self, inside: str) -> None:
        taken = [
            form for form in plain_forms(IPv4Address(inside)) if form != inside and is_refused(form)
        ]

        assert taken == [form for form in plain_forms(IPv4Address(inside)) if form != inside]

    def test_is_refused_wherever_it_is_wrapped(self, inside: str) -> None:
        for form in wrapped_forms(IPv4Address(inside)):
            for shown in (str(form), form.exploded, str(form).upper(), dotted(form)):
                assert is_refused(f"[{shown}]"), shown
                with pytest.raises(RefusedTargetError):
                    TARGETS.check_addresses("example.com", 443, [shown])

    def test_is_refused_as_what_a_name_leads_to(self, inside: str) -> None:
        for answer in ([inside], ["1.1.1.1", inside], [inside, "1.1.1.1"]):
            with pytest.raises(RefusedTargetError):
                TARGETS.check_addresses("example.com", 443, answer)


@pytest.mark.parametrize("inside", INSIDE_6)
def test_ipv6_is_refused(inside: str) -> None:
    assert is_refused(f"[{inside}]")
    assert is_refused(f"[{inside.replace('%', '%25')}]")
    with pytest.raises(RefusedTargetError):
        TARGETS.check_addresses("example.com", 443, ["2606:4700::1111", inside])


@pytest.mark.parametrize("outside", PUBLIC)
def test_what_lies_beside_is_public(outside: str) -> None:
    assert is_public(ipaddress.ip_address(outside))
    TARGETS.check_addresses("example.com", 443, [outside])


@pytest.mark.parametrize("answer", ["", "example.com", "1.1.1", "0x1.1.1.1", "1.1.1.1/32", "::g"])
def test_what_is_no_address_is_refused(answer: str) -> None:
    with pytest.raises(RefusedTargetError):
        TARGETS.check_addresses("example.com", 443, [answer])


@given(st.ip_addresses(v=4))
def test_no_wrapping_makes_an_address_more_public(address: IPv4Address) -> None:
    if not is_public(address):
        assert not any(is_public(form) for form in wrapped_forms(address))


@given(st.ip_addresses(v=6))
def test_nothing_outside_of_the_public_ranges_is_public(address: IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert str(address).startswith(("2", "3", "64:ff9b:"))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com:+443/",
        "https://example.com:0443/",
        "https://example.com:/",
        "https://example.com:4_43/",
        "https://example.com:0x1bb/",
        "https://example.com:443:80/",
        "https://example.com:443%40/",
        "https://[2606:4700::1111]:+443/",
        "https://[2606:4700::1111]443/",
        "https://[127.0.0.1]/",
        "https://[::ffff:127.0.0.1/",
        "https://::1/",
        "https://example.com%00.inner/",
        "https://example.com%2f@127.0.0.1/",
        "https://127.0.0.1%23@example.com/",
        "https://example.com;127.0.0.1/",
        "https://example.com,127.0.0.1/",
        "https://example.com&@127.0.0.1/",
        "https://exa\u00admple.com/",
        "https://\u2460\u2461\u2466.0.0.1/",
        "https://\u24c1ocalhost/",
        "https://example\u3002com/",
        "https:\\\\127.0.0.1/",
        "https:/127.0.0.1/",
        "https:127.0.0.1/",
        "https:///127.0.0.1/",
        " https://example.com/",
        "https://example.com/\n",
        "https://example.com/\x00",
        "jar:https://example.com/",
        "url:https://example.com/",
        "https+unix://%2Ftmp%2Fsocket/",
    ],
)
def test_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(RefusedTargetError):
        TARGETS.check(url)


@given(st.text(alphabet="htps:/\\@#?.[]%0x127a;\t", max_size=24))
def test_what_is_taken_is_sent_where_it_was_checked(text: str) -> None:
    """The parts are those that anybody would read, so no other parser finds another host."""
    try:
        url = TARGETS.check(f"https://{text}")
    except RefusedTargetError:
        return

    host = url.raw_host or ""
    assert text.lower().startswith((host, f"[{host}]"))
    assert url.user is None
    assert url.port == 443
