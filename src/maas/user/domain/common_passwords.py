"""The passwords everybody tries first; where the list is from stands in its licence file."""

import gzip
import string
from functools import cache
from importlib.resources import files
from typing import Final

LIST: Final = "common_passwords.txt.gz"
MAX_PADDING: Final = 6
"""So many digits and signs around a common word do not make it a rare one."""

MIN_WORD: Final = 4
_PADDING: Final = string.digits + string.punctuation + " "


@cache
def common_passwords() -> frozenset[str]:
    """Read the list once, in some ten milliseconds; whoever serves requests does so before."""
    packed = files(__package__).joinpath(LIST).read_bytes()
    return frozenset(gzip.decompress(packed).decode().split("\n"))


def is_common(password: str) -> bool:
    """Tell whether it is on the list, in any case, as it is, said twice, or lightly padded."""
    lowered, known = password.lower(), common_passwords()
    word = lowered.strip(_PADDING)
    is_padded = len(word) >= MIN_WORD and len(lowered) - len(word) <= MAX_PADDING
    half = lowered[: len(lowered) // 2]
    return (
        lowered in known or (is_padded and word in known) or (half * 2 == lowered and half in known)
    )
