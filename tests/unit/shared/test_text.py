"""What a line may not hide: characters that show nothing, or nothing of their own."""

import pytest

from maas.shared.domain.text import compose, has_invisible


@pytest.mark.parametrize(
    "char",
    [
        "\t",
        "\u00ad",
        "\u034f",
        "\u115f",
        "\u1160",
        "\u17b4",
        "\u180b",
        "\u200b",
        "\u2065",
        "\u2800",
        "\u3164",
        "\ufe00",
        "\uffa0",
        "\ufff0",
        "\U00013441",
        "\U00016fe4",
        "\U0001d159",
        "\U000e0000",
        "\U000e0100",
        "\U000e0fff",
    ],
)
def test_what_shows_nothing_is_told_alone_and_within(char: str) -> None:
    assert has_invisible(char)
    assert has_invisible(f"模{char}型")


@pytest.mark.parametrize(
    "text",
    [
        "OpenAI, research",
        "通义千问 2.5",
        "한국어 모델",
        "নাম café",
        "fast ⚡\ufe0f",
        "❤\ufe0f",
        "❤\ufe0e",
        "‼\ufe0f",
        "1\ufe0f\u20e3 first",
        "💡 ⠿",
    ],
)
def test_what_can_be_seen_is_left_alone(text: str) -> None:
    assert not has_invisible(text)


@pytest.mark.parametrize(
    "text", ["\ufe0f", "gpt-4\ufe0f", "gpt\ufe0f", "模\ufe0f", "❤\ufe0f\ufe0f", "+\ufe0f"]
)
def test_what_styles_an_emoji_hides_nowhere_else(text: str) -> None:
    assert has_invisible(text)


@pytest.mark.parametrize("text", ["e\u0301", "\u03b1\u0313\u0300\u0345", "\u1112\u1161\u11ab"])
def test_one_look_has_one_spelling_however_many_parts_it_came_in(text: str) -> None:
    assert len(compose(text * 9, max_chars=9)) == 9


def test_what_can_but_be_too_long_is_not_composed() -> None:
    # Quadratic: this would take an hour.
    text = "a" + "\u0315\u0300" * 1_000_000

    assert compose(text, max_chars=200) == text
