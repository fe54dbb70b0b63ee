"""How many tokens a text has, without the model's own tokenizer: at most, and likely.

At most it is one for each byte, since no tokenizer makes a token of less. What a model's template
puts around messages and tools is counted on top of that.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Final

TOKENS_A_REQUEST: Final = 256
"""What a template may say before the first message."""

TOKENS_OF_TOOLS: Final = 1_024
"""What suppliers say to a model about tools, beside the tools."""

TOKENS_A_TEXT: Final = 2
"""The marks of its begin and its end."""

TOKENS_A_MEMBER: Final = 12
"""Quotes, commas and indentation where a template spells an object out; the role of a message."""

TOKENS_AN_ELEMENT: Final = 4
"""A comma and what it is set apart by where a template spells a list out."""

TOKENS_A_PART: Final = 50_000
"""A picture, sound or file, at most: its bytes say nothing about its tokens."""

TOKENS_A_PIECE_OF_STREAM: Final = 2
"""Pieces of a stream may look up to so long, and count as one token each all the same."""

TOKENS_A_MARK: Final = 4
"""What an accent may add by joining its letter in the place of another one."""

SLICE_CHARS: Final = 1 << 17
"""So much of a text is looked at in one go: other threads want to run in between."""

_MEDIA: Final = frozenset(
    {"image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file"}
)
_BYTES_OF_MEDIA: Final = frozenset({"url", "data", "file_data", "file_id", "image_url"})
_BEGIN_WIDE: Final = range(0xE3, 0xF5)
"""What the UTF-8 of a wide character begins with: they stand from U+3000 on."""

_BEGIN_NO_WIDE: Final = bytes(each for each in range(256) if each not in _BEGIN_WIDE)


def most_input(body: Mapping[str, object]) -> int:
    """Tell how many tokens a request's prompt has at most."""
    most = TOKENS_A_REQUEST
    if body.get("tools") or body.get("functions"):
        most += TOKENS_OF_TOOLS
    read, spelt = list[object](), list[object]()
    for name, value in body.items():
        most += TOKENS_A_MEMBER + _count_bytes(name)
        if name == "messages":
            most += _sort_messages(value, read, spelt)
        elif name in {"prompt", "input"}:
            most += _sort_prompt(value, read)
        else:
            spelt.append(value)
    return most + _most_of(read, _count_bytes) + _most_of(spelt, _count_spelt)


def _sort_messages(messages: object, read: list[object], spelt: list[object]) -> int:
    """Tell what a template passes on as it stands from what it spells out; count the rest."""
    if not isinstance(messages, list):
        spelt.append(messages)
        return 0
    most = 0
    for message in messages:
        if not isinstance(message, dict):
            spelt.append(message)
            continue
        most += TOKENS_A_MEMBER * (len(message) + 1)
        for name, value in message.items():
            most += _count_bytes(name)
            if name == "content":
                most += _sort_content(value, read)
            else:
                spelt.append(value)
    return most


def _sort_content(content: object, read: list[object]) -> int:
    if not isinstance(content, list):
        read.append(content)
        return 0
    most = 0
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _MEDIA:
            most += TOKENS_A_PART + TOKENS_A_MEMBER * (len(part) + 1)
            read += part.keys()
            read += _beside_the_bytes(part, kind)
        else:
            read.append(part)
    return most


def _sort_prompt(prompt: object, read: list[object]) -> int:
    if isinstance(prompt, list):
        if all(type(each) is int for each in prompt):
            # A prompt in tokens.
            return TOKENS_A_TEXT + len(prompt)
        if all(isinstance(each, list) for each in prompt):
            return sum(_sort_prompt(each, read) for each in prompt)
    read.append(prompt)
    return 0


def _most_of(waiting: list[object], count: Callable[[str], int]) -> int:
    most = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            most += TOKENS_A_TEXT + count(value)
        elif isinstance(value, dict):
            most += TOKENS_A_MEMBER * (len(value) + 1)
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            most += TOKENS_AN_ELEMENT * (len(value) + 1)
            waiting += value
        else:
            most += len(str(value))
    return most


def _count_bytes(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_count_slice, _slices(text)))


def _count_slice(text: str) -> int:
    length = _length(text)
    if unicodedata.is_normalized("NFKC", text):
        return length
    # Some models spell out what is one character, such as a ligature, before they count.
    more = {each: added for each in set(text) if (added := _added_bytes(each))}
    if more:
        times = Counter(text)
        length += sum(times[each] * added for each, added in more.items())
    return length


@lru_cache(maxsize=8_192)
def _added_bytes(char: str) -> int:
    """Tell how many bytes more a character has at most where it is spelt out."""
    spelt = unicodedata.normalize("NFKC", char)
    added = max(_length(spelt) - _length(char), 0)
    return added + TOKENS_A_MARK * any(map(unicodedata.combining, spelt))


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _count_spelt(text: str) -> int:
    """Count a text that a template may write as JSON, which has escapes."""
    escaped = sum(len(encode_basestring_ascii(each)) for each in _slices(text))
    return escaped if text.isascii() else max(escaped, _count_bytes(text))


def _slices(text: str) -> Iterable[str]:
    return (text,) if len(text) <= SLICE_CHARS else _cut(text)


def _cut(text: str) -> Iterator[str]:
    for at in range(0, len(text), SLICE_CHARS):
        yield text[at : at + SLICE_CHARS]


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
    wide = sum(map(_count_wide, _slices(text)))
    return wide + (len(text) - wide + 3) // 4


@dataclass(slots=True)
class Pieces:
    """The tokens of a stream, by its pieces: most send one in each, and what is longer several."""

    count: int = 0
    of_texts: int = 0

    def add(self, tokens: int) -> None:
        """Add a piece whose text by itself has so many."""
        self.count += tokens > 0
        self.of_texts += tokens

    @property
    def tokens(self) -> int:
        is_piecemeal = self.of_texts <= self.count * TOKENS_A_PIECE_OF_STREAM
        return self.count if is_piecemeal else self.of_texts


def _count_wide(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass").translate(None, _BEGIN_NO_WIDE))
