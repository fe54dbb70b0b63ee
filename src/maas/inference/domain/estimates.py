"""How many tokens a text has, without the model's own tokenizer: at most, and likely.

At most it is one for each byte, since no tokenizer makes a token of less. What a model's template
puts around messages and tools is counted on top of that.
"""

import unicodedata
from collections.abc import Mapping
from typing import Final

TOKENS_A_REQUEST: Final = 256
"""What a template may say before the first message."""

TOKENS_OF_TOOLS: Final = 1_024
"""What suppliers say to a model about tools, beside the tools."""

TOKENS_A_TEXT: Final = 2
"""The marks of its begin and its end."""

TOKENS_A_MEMBER: Final = 12
"""Quotes, commas and indentation where a template spells an object out; the role of a message."""

TOKENS_A_PART: Final = 50_000
"""A picture, sound or file, at most: its bytes say nothing about its tokens."""

_MEDIA: Final = frozenset(
    {"image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file"}
)
_BYTES_OF_MEDIA: Final = frozenset({"url", "data", "file_data", "file_id", "image_url"})


def most_input(body: Mapping[str, object]) -> int:
    """Tell how many tokens a request's prompt has at most."""
    most = TOKENS_A_REQUEST
    if body.get("tools") or body.get("functions"):
        most += TOKENS_OF_TOOLS
    waiting: list[object] = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            most += TOKENS_A_TEXT + _count_bytes(value)
        elif isinstance(value, dict):
            most += TOKENS_A_MEMBER * (len(value) + 1)
            waiting += value.keys()
            if isinstance(kind := value.get("type"), str) and kind in _MEDIA:
                most += TOKENS_A_PART
                waiting += _beside_the_bytes(value, kind)
            else:
                waiting += value.values()
        elif isinstance(value, list):
            if all(type(each) is int for each in value):
                # A prompt in tokens.
                most += TOKENS_A_TEXT + len(value)
            else:
                waiting += value
        else:
            most += len(str(value))
    return most


def _count_bytes(text: str) -> int:
    if text.isascii():
        return len(text)
    length = len(text.encode("utf-8", "surrogatepass"))
    if unicodedata.is_normalized("NFKC", text):
        return length
    # Some models spell out what is one character, such as a ligature, before they count.
    spelt = unicodedata.normalize("NFKC", text)
    return max(length, len(spelt.encode("utf-8", "surrogatepass")))


def _beside_the_bytes(part: Mapping[str, object], kind: str) -> list[object]:
    """List what a part says beside the bytes, or the address, of what is shown or played."""
    found = [value for name, value in part.items() if name not in {kind, *_BYTES_OF_MEDIA}]
    media = part.get(kind)
    if isinstance(media, dict):
        found += [value for name, value in media.items() if name not in _BYTES_OF_MEDIA]
    return found


def count_text(text: str) -> int:
    """Estimate the tokens of a text: four characters each, and one for each wide one."""
    if text.isascii():
        return (len(text) + 3) // 4
    wide = sum(each > "\u2e7f" for each in text)
    return wide + (len(text) - wide + 3) // 4
