from pathlib import Path

import pytest

from maas.client.credentials import find_access
from maas.client.errors import ClientError
from maas.client.logins import StoredKey, keys_path, read_keys, write_keys


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_a_file_wins_over_the_environment_and_that_over_a_sign_in(
    environment: dict[str, str], tmp_path: Path
) -> None:
    write_keys(environment, {"http://127.0.0.1:8000": StoredKey(key="kept", key_id="1")})
    (tmp_path / "key").write_text("of-file\n")

    stored = find_access(url=None, key_file=None, environment=environment)
    environment["MAAS_API_KEY"] = "of-environment"
    given = find_access(url=None, key_file=None, environment=environment)
    of_file = find_access(url=None, key_file=tmp_path / "key", environment=environment)

    assert (stored.key, given.key, of_file.key) == ("kept", "of-environment", "of-file")
    assert "of-file" not in repr(of_file)


def test_a_kept_key_goes_to_its_own_address_alone(environment: dict[str, str]) -> None:
    write_keys(environment, {"https://maas.example.com": StoredKey(key="kept", key_id="1")})

    with pytest.raises(ClientError, match=r"There is no key for https://evil\.example\.com"):
        find_access(url="https://evil.example.com", key_file=None, environment=environment)


def test_kept_keys_are_for_their_owner_alone(environment: dict[str, str]) -> None:
    path = write_keys(environment, {"http://a": StoredKey(key="kept", key_id="1")})

    assert path == keys_path(environment)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"http://a": {"key": "x"}}', '{"http://a": 1}'])
def test_a_broken_file_of_keys_is_told(environment: dict[str, str], content: str) -> None:
    keys_path(environment).parent.mkdir(parents=True)
    keys_path(environment).write_text(content)

    with pytest.raises(ClientError, match="sign in again"):
        read_keys(environment)


@pytest.mark.parametrize("key", ["a b", "a\r\nX-Evil: 1", "schlüssel", "x" * 9000])
def test_what_is_no_key_is_not_sent(environment: dict[str, str], key: str) -> None:
    with pytest.raises(ClientError, match="characters that no key has"):
        find_access(url=None, key_file=None, environment={**environment, "MAAS_API_KEY": key})


@pytest.mark.parametrize(
    "url",
    ["ftp://a", "a", "http://", "http://user:pw@a", "http://a?x=1", "http://a#x", "http://a:99999"],
)
def test_what_is_no_address_is_refused(environment: dict[str, str], url: str) -> None:
    with pytest.raises(ClientError, match="is no address of an API"):
        find_access(url=url, key_file=None, environment={**environment, "MAAS_API_KEY": "key"})


@pytest.mark.parametrize(
    ("url", "is_exposed"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000/", False),
        ("http://[::1]:8000", False),
        ("https://maas.example.com/api-host", False),
        ("http://maas.example.com", True),
    ],
)
def test_a_key_on_an_open_line_is_seen(
    environment: dict[str, str], url: str, *, is_exposed: bool
) -> None:
    access = find_access(url=url, key_file=None, environment={**environment, "MAAS_API_KEY": "k"})

    assert access.is_exposed is is_exposed
    assert not str(access.url).endswith("/")
