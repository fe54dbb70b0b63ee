"""Long documents are the same, written piece by piece."""

import json
from typing import Any

import pytest

from maas.inference.domain import long_json
from maas.inference.domain.long_json import write_members

LEAVES: list[Any] = [None, True, -7, 0.1, 1e300, 'é"\n', "", [], {}]
DOCUMENTS: list[dict[str, Any]] = [
    {},
    {'"': 1},
    {"a": 1, "b": 2, "c": 3, "d": [1], "e": 5},
    {
        "all": LEAVES,
        "again": [LEAVES, *LEAVES],
        "in": {str(at): each for at, each in enumerate(LEAVES)},
    },
    {"deep": [[[[1, 2, 3]], {"a": {"b": {}}}], 4, 5, [6]]},
]


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
def test_any_object_is_written_as_in_one_go(
    monkeypatch: pytest.MonkeyPatch, document: dict[str, Any], size: int
) -> None:
    monkeypatch.setattr(long_json, "SLICE", size)
    whole = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    assert b"{" + write_members(document) + b"}" == whole
