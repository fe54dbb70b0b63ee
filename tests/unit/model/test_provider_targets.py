"""Base URLs: which may be called, by whose leave, and in which spelling they are kept."""

import pytest

from maas.model.domain.provider import TargetRefusedError
from maas.model.infrastructure.provider_targets import SupplierTargets
from maas.shared.infrastructure.settings import OutgoingSettings

LISTED = ("10.0.0.5:8000", "gpu.lan:443", "[fd00::5]:8000", "127.0.0.1:11434")
CHECK = SupplierTargets(OutgoingSettings(allowed_private_targets=LISTED))
NOBODYS = SupplierTargets(OutgoingSettings())


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("HTTPS://API.OpenAI.com:443/v1/", "https://api.openai.com/v1"),
        ("https://a.example.com", "https://a.example.com"),
        ("https://a.example.com/", "https://a.example.com"),
        ("https://a.example.com/x/../v1//", "https://a.example.com/v1"),
        ("https://[2606:4700::1111]/v1", "https://[2606:4700::1111]/v1"),
    ],
)
def test_it_is_kept_in_one_spelling_that_is_read_the_same_again(url: str, base_url: str) -> None:
    found = CHECK(url, is_operator=False)
    assert (found.base_url, found.reach) == (base_url, "public")
    assert CHECK(found.base_url, is_operator=False) == found


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:8000/v1",
        "https://gpu.lan/v1",
        "http://[fd00::5]:8000/v1",
        "http://127.0.0.1:11434/v1",
    ],
)
def test_the_operator_reaches_what_is_listed(url: str) -> None:
    assert CHECK(url, is_operator=True).reach == "private"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.5:8001/v1", "http://10.0.0.6:8000/v1", "https://127.0.0.1/v1"]
)
def test_what_is_not_listed_nobody_reaches(url: str) -> None:
    for is_operator in (True, False):
        with pytest.raises(TargetRefusedError):
            CHECK(url, is_operator=is_operator)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:8000/v1",
        "https://10.0.0.5:8000/v1",
        "https://10.0.0.5/v1",
        "https://gpu.lan/v1",
        "https://gpu.lan:8443/v1",
        "http://[fd00::5]:8000/v1",
        "http://127.0.0.1:11434/v1",
    ],
)
def test_a_tenant_cannot_tell_what_is_on_the_list(url: str) -> None:
    """It is answered as if there were no list at all."""

    def said(check: SupplierTargets) -> str:
        try:
            return str(check(url, is_operator=False))
        except TargetRefusedError as refused:
            return refused.detail

    assert said(CHECK) == said(NOBODYS)


def test_a_name_that_is_listed_gives_a_tenant_no_private_reach() -> None:
    assert CHECK("https://gpu.lan/v1", is_operator=False).reach == "public"


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example.com/v1?x=1",
        "https://a.example.com/v1?",
        "https://a.example.com/v1#x",
        "https://key@a.example.com/v1",
        "https://a.example.com:8443/v1",
        "http://a.example.com/v1",
        "https://169.254.169.254/v1",
        "https://0x7f.1/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://a.example.com\\@10.0.0.5/v1",
        "ftp://a.example.com/",
        "a.example.com",
        "",
        "https://a.example.com/" + "v" * 500,
    ],
)
def test_what_is_odd_is_refused_in_words_of_our_own(url: str) -> None:
    for is_operator in (True, False):
        with pytest.raises(TargetRefusedError) as refused:
            CHECK(url, is_operator=is_operator)
        assert not url or url not in refused.value.detail
