"""What clients are told to do about a refusal."""

import json
from datetime import timedelta

import pytest

from maas.inference.interface.openai_errors import render_openai_error
from maas.shared.interface.problems import problem_of
from maas.user.public import QuotaExceededError, Shortage

SHORTAGE = Shortage(
    scope="key",
    meter="tokens",
    period="month",
    limit=100,
    used=10,
    held=90,
    needed=5,
    currency=None,
    resets_at=None,
)


@pytest.mark.parametrize(
    ("wait", "code", "retry"),
    [
        (timedelta(seconds=5), "rate_limit_exceeded", "true"),
        (timedelta(days=8), "insufficient_quota", "false"),
        (None, "insufficient_quota", "false"),
    ],
)
def test_a_quota_is_asked_again_soon_only_where_that_may_help(
    wait: timedelta | None, code: str, retry: str
) -> None:
    told = render_openai_error(problem_of(QuotaExceededError(SHORTAGE, retry_after=wait)), "", "")

    assert told.status_code == 429
    assert json.loads(bytes(told.body))["error"]["code"] == code
    assert told.headers.get("X-Should-Retry") == retry
