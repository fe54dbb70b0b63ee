"""Which URLs may be called: a table of the ways to write an address that is not public."""

import pytest

from maas.shared.infrastructure.outgoing_targets import RefusedTargetError, Targets
from maas.shared.infrastructure.settings import OutgoingSettings

TARGETS = Targets.of(
    OutgoingSettings(
        allowed_private_targets=("Alerts.lan:8080", "127.0.0.1:9000", "[fd00::7]:80"),
        allowed_ports=("443", "8443"),
    )
)

FINE = [
    "https://example.com/hook?x=1",
    "https://EXAMPLE.com:8443/",
    "https://xn--fsqu00a.xn--0zwm56d/a%20b",
    "https://1.1.1.1/",
    "https://[2606:4700::1111]/",
    "https://[64:ff9b::101:101]/",
    "http://alerts.lan:8080/",
    "http://ALERTS.lan:8080/",
    "https://alerts.lan:8080/",
    "http://127.0.0.1:9000/hook",
    "http://[fd00::7]:80/",
]

REFUSED = [
    # Schemes, ports and parts a URL should not have.
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "//example.com/",
    "example.com",
    "",
    "https://",
    "https:///hook",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:x/",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://example.com@127.0.0.1/",
    "https://@example.com/",
    "https://example.com/#part",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/ x",
    "https://exa\tmple.com/",
    "https://example.com/\r\nHost: x",
    "https://ex\u0430mple.com/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://exam ple.com/",
    "https://%31%32%37.0.0.1/",
    "https://a..b/",
    "https://example.com/" + "x" * 2048,
    # Addresses that are not public, spelled plainly.
    "https://127.0.0.1/",
    "https://127.1.2.3/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    "https://192.88.99.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    # The same as numbers of other kinds.
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://017700000001/",
    "https://1.1.1/",
    "https://00000001.1.1.1/",
    # IPv6, alone and wrapped around IPv4.
    "https://[::]/",
    "https://[::1]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:1.1.1.1]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2001:0:7f00:1::]/",
    "https://[2606:4700::5efe:7f00:1]/",
    "https://[2606:4700::200:5efe:a00:1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[2606:4700::1111%25eth0]/",
    "https://[fc00::1]/",
    "https://[fd00::7]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[100::1]/",
    "https://[::1",
    # Next to what the operator allows.
    "http://127.0.0.1:9001/",
    "http://127.0.0.2:9000/",
    "http://127.1:9000/",
    "http://0x7f.0.0.1:9000/",
    "http://alerts.lan/",
    "http://alerts.lan.:8080/",
    "http://x.alerts.lan:8080/",
    "http://user@alerts.lan:8080/",
    "http://[fd00::7]:81/",
    "http://[fd00:0:0::8]:80/",
]


@pytest.mark.parametrize("url", FINE)
def test_may_be_called(url: str) -> None:
    assert TARGETS.check(url).host


@pytest.mark.parametrize("url", REFUSED)
def test_may_not_be_called(url: str) -> None:
    with pytest.raises(RefusedTargetError) as refused:
        TARGETS.check(url)

    assert refused.value.message.endswith(".")
    assert url == "" or url not in refused.value.message


class TestAddressesOfAName:
    @pytest.mark.parametrize(
        "addresses",
        [
            ["127.0.0.1"],
            ["1.1.1.1", "10.0.0.1"],
            ["2606:4700::1111", "::1"],
            ["::ffff:1.1.1.1"],
            ["fe80::1%eth0"],
            ["no address"],
        ],
    )
    def test_one_bad_one_spoils_them(self, addresses: list[str]) -> None:
        with pytest.raises(RefusedTargetError):
            TARGETS.check_addresses("example.com", 443, addresses)

    def test_public_ones_are_fine(self) -> None:
        TARGETS.check_addresses("example.com", 443, ["1.1.1.1", "2606:4700::1111"])

    def test_what_the_operator_names_may_lie_anywhere(self) -> None:
        TARGETS.check_addresses("alerts.lan", 8080, ["10.0.0.7"])
        with pytest.raises(RefusedTargetError):
            TARGETS.check_addresses("alerts.lan", 443, ["10.0.0.7"])


@pytest.mark.parametrize(
    "target", ["host", "host:", "host:0", "host:70000", "http://host:80", ":80", "a@b:80"]
)
def test_the_operators_list_wants_exact_targets(target: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        OutgoingSettings(allowed_private_targets=(target,))
    with pytest.raises(ValueError, match="host:port"):
        OutgoingSettings(allowed_webhook_targets=(target,))


def test_webhooks_do_not_reach_what_was_opened_for_suppliers() -> None:
    settings = OutgoingSettings(
        allowed_private_targets=("models.lan:8080",), allowed_webhook_targets=("alerts.lan:8080",)
    )

    assert Targets.for_webhooks(settings).check("http://alerts.lan:8080/").port == 8080
    assert Targets.of(settings).check("http://models.lan:8080/").port == 8080
    with pytest.raises(RefusedTargetError):
        Targets.for_webhooks(settings).check("http://models.lan:8080/")
    with pytest.raises(RefusedTargetError):
        Targets.of(settings).check("http://alerts.lan:8080/")


@pytest.mark.parametrize("ports", [("0",), ("x",), ("65536",)])
def test_the_list_of_ports_wants_ports(ports: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="1 to 65535"):
        OutgoingSettings(allowed_ports=ports)


def test_without_a_list_of_ports_there_is_one() -> None:
    targets = Targets.of(OutgoingSettings())

    assert targets.check("https://example.com/").port == 443
    with pytest.raises(RefusedTargetError, match="443"):
        targets.check("https://example.com:8443/")
