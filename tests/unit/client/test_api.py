import pytest

from maas.client.api import Api
from maas.client.credentials import Access, read_url
from maas.client.errors import StrangeAnswerError


def api(url: str) -> Api:
    return Api(Access(url=read_url(url), key="k"))


@pytest.mark.parametrize(
    ("url", "location", "found"),
    [
        ("http://a:8000", "/api/v1/uploads/1", "http://a:8000/api/v1/uploads/1"),
        ("http://a:8000", "http://a:8000/api/v1/uploads/1", "http://a:8000/api/v1/uploads/1"),
        ("https://a/maas", "/api/v1/uploads/1", "https://a/maas/api/v1/uploads/1"),
    ],
)
def test_an_upload_is_where_its_own_server_says(url: str, location: str, found: str) -> None:
    assert str(api(url).own_url(location)) == found


@pytest.mark.parametrize(
    "location",
    [
        "//evil/api/v1/uploads/1",
        "http://evil/api/v1/uploads/1",
        "https://a:8000/api/v1/uploads/1",
        "http://a:8001/api/v1/uploads/1",
        "http://a:8000@evil/api/v1/uploads/1",
        "file:///etc/passwd",
        "http://[::1",
        "http://user:pw@a:8000/api/v1/uploads/1",
        "http://user@a:8000/api/v1/uploads/1",
    ],
)
def test_another_server_does_not_see_the_key(location: str) -> None:
    with pytest.raises(StrangeAnswerError):
        api("http://a:8000").own_url(location)
