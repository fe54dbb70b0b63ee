import pytest

from maas.audit.domain.retention import RETENTION_CLASSES, classify


@pytest.mark.parametrize(
    ("action", "retention_class"),
    [
        ("auth.login", "security"),
        ("account.created", "security"),
        ("api_key.rotated", "security"),
        ("audit.read", "security"),
        ("access.denied", "security"),
        ("model.created", "operations"),
        ("deployment.updated", "operations"),
        ("inference.completed", "usage"),
        ("authentic.thing", "operations"),
        ("", "operations"),
    ],
)
def test_the_first_word_of_an_action_decides(action: str, retention_class: str) -> None:
    assert classify(action) == retention_class
    assert classify(action) in RETENTION_CLASSES
