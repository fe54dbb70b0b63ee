"""Refusals under `/v1`, in the form that OpenAI's clients read."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic_core import to_json
from starlette.responses import Response

from maas.inference.application.reading import RefusedRequestError
from maas.inference.application.replays import AlreadyProcessedError
from maas.inference.domain.failures import UnknownModelError, UpstreamRefusedError
from maas.inference.domain.limits import ContextLengthExceededError
from maas.inference.domain.wire import NotTakenError
from maas.shared.application.ports import InvalidApiKeyError, InvalidTokenError
from maas.shared.domain.errors import UnauthenticatedError
from maas.shared.domain.idempotency import IdempotencyKeyReusedError
from maas.shared.domain.rate_limit import RateLimitedError
from maas.shared.interface.problems import FaceContract, Problem
from maas.shared.interface.security import CredentialError
from maas.user.public import BudgetCurrencyError, BudgetExceededError, QuotaExceededError

_TYPES: Final[Mapping[int, str]] = {
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}
"""By status; what is not here is the request's fault below 500, and the server's from there on."""

_INVALID_KEY: Final = "invalid_api_key"
_NO_QUOTA: Final = "insufficient_quota"
_TOO_FAST: Final = "rate_limit_exceeded"
_SOON: Final = range(2, 61)
"""Seconds; a single one is what is said where nobody knows."""

_CODES: Final[Mapping[str, str]] = {
    UnauthenticatedError.code: _INVALID_KEY,
    CredentialError.code: _INVALID_KEY,
    InvalidTokenError.code: _INVALID_KEY,
    InvalidApiKeyError.code: _INVALID_KEY,
    UnknownModelError.code: "model_not_found",
    NotTakenError.code: "unsupported_parameter",
    RateLimitedError.code: _TOO_FAST,
    QuotaExceededError.code: _NO_QUOTA,
    BudgetExceededError.code: _NO_QUOTA,
    BudgetCurrencyError.code: _NO_QUOTA,
    ContextLengthExceededError.code: "context_length_exceeded",
}
"""OpenAI's own words for what clients look for; every other code is as `docs/errors.md` has it."""

_IN_VAIN: Final = frozenset(
    {
        AlreadyProcessedError.code,
        BudgetCurrencyError.code,
        BudgetExceededError.code,
        IdempotencyKeyReusedError.code,
        QuotaExceededError.code,
        UpstreamRefusedError.code,
    }
)
"""Asking again a moment later does not help, whatever the status lets clients think."""

ERROR_SCHEMA: Final[Mapping[str, Any]] = {
    "title": "OpenAIError",
    "description": "An error in OpenAI's form.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "code": {
                    "anyOf": [{"type": "string"}, {"type": "null"}],
                    "description": "OpenAI's own where it has one, else as in docs/errors.md.",
                },
            },
        }
    },
}


def status_under_v1(problem: Problem) -> int:
    """Tell the status: what is wrong with a request is a 400 here, as it is at OpenAI's."""
    upstream = problem.extensions.get("upstream")
    if problem.code == RefusedRequestError.code and isinstance(upstream, dict):
        return int(upstream["status"])
    if problem.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return 422 if problem.code == IdempotencyKeyReusedError.code else 400
    return problem.status


def error_document(problem: Problem) -> dict[str, object]:
    """Write a problem as OpenAI's clients read it."""
    status, code = status_under_v1(problem), _CODES.get(problem.code, problem.code)
    if code == _NO_QUOTA and not _is_in_vain(problem):
        code = _TOO_FAST
    usual = (
        "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    )
    kind = _NO_QUOTA if code == _NO_QUOTA else _TYPES.get(status, usual)
    param = _param_of(problem)
    upstream = problem.extensions.get("upstream")
    if isinstance(upstream, dict):
        param, code = upstream["param"], upstream["code"]
    return {"error": {"message": problem.detail, "type": kind, "param": param, "code": code}}


def render_openai_error(problem: Problem, _instance: str, _request_id: str) -> Response:
    headers = dict(problem.headers)
    if problem.code in _IN_VAIN:
        headers["X-Should-Retry"] = "false" if _is_in_vain(problem) else "true"
    first_request = problem.extensions.get("first_request_id")
    if isinstance(first_request, str):
        headers["X-Maas-First-Request-Id"] = first_request
    return Response(
        to_json(error_document(problem)),
        status_code=status_under_v1(problem),
        headers=headers,
        media_type="application/json",
    )


def _is_in_vain(problem: Problem) -> bool:
    """Tell whether asking again soon is: not where a quota is only set aside, or about to reset."""
    if problem.code not in _IN_VAIN:
        return False
    is_of_quota = problem.code in {QuotaExceededError.code, BudgetExceededError.code}
    return not is_of_quota or int(problem.headers.get("Retry-After", 0)) not in _SOON


def _param_of(problem: Problem) -> str | None:
    """Name what is wrong, without the place where it stood."""
    if not problem.errors:
        return None
    parts = [str(part) for part in problem.errors[0].loc if part not in {"body", "query", "path"}]
    return ".".join(parts) or None


FACE: Final = FaceContract(
    name="OpenAIError",
    schema=ERROR_SCHEMA,
    spell=lambda problem: (status_under_v1(problem), error_document(problem)),
)
