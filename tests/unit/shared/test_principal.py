import pytest

from maas.shared.domain.principal import covers


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
