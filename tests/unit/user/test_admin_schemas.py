import pytest
from pydantic import ValidationError

from maas.user.interface.admin_schemas import BulkRequest


def _rows(count: int) -> dict[str, object]:
    rows = [
        {"act": "create", "username": f"user-{number}", "email": f"user-{number}@example.com"}
        for number in range(count)
    ]
    return {"mode": "each", "rows": rows}


def test_a_bulk_request_has_no_more_rows_than_three_seconds_do() -> None:
    assert len(BulkRequest.model_validate(_rows(100)).rows) == 100
    with pytest.raises(ValidationError, match="too_long"):
        BulkRequest.model_validate(_rows(101))
