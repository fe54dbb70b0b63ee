"""What OpenAPI says beyond FastAPI: credentials, permissions, and each problem of each operation.

A problem is found where it is declared (`may_refuse`): on the route, on what the route depends on,
or here for what comes with a body or with every call. Each code stands once, as an example.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from zlib import crc32

from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from pydantic import BaseModel

from maas.shared.domain.errors import (
    REFUSALS_ATTRIBUTE,
    MaasError,
    PayloadTooLargeError,
    SlowRequestError,
    UnavailableError,
    UnsupportedMediaError,
)
from maas.shared.domain.idempotency import (
    IdempotencyInProgressError,
    IdempotencyKeyReusedError,
    KeptAnswerUnreadableError,
)
from maas.shared.domain.rate_limit import RateLimitedError
from maas.shared.interface.handlers import INVALID
from maas.shared.interface.idempotency import HEADER as IDEMPOTENCY_HEADER
from maas.shared.interface.idempotency import RENDER_ATTRIBUTE, InvalidIdempotencyKeyError
from maas.shared.interface.outages import OUTAGES, WRITE_FAILURES
from maas.shared.interface.problems import (
    INTERNAL,
    PROBLEM_MEDIA_TYPE,
    FaceContract,
    Problem,
    problem_document,
    status_of,
)
from maas.shared.interface.readers import JSON_MEDIA_TYPE, StrictRoute
from maas.shared.interface.routes import RouteFacts
from maas.shared.interface.strict_form import InvalidFormError
from maas.shared.interface.strict_json import (
    InvalidJsonError,
    InvalidTextError,
    NestedTooDeepError,
    TooWideError,
)
from maas.shared.interface.urls import INVALID_URL

TOKEN_URL = "/api/v1/auth/token"  # noqa: S105  a path, not a secret

SECURITY_SCHEMES: dict[str, object] = {
    "password": {
        "type": "oauth2",
        "flows": {"password": {"tokenUrl": TOKEN_URL, "scopes": {}}},
        "description": "Sign in with user name and password.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A session token, or an API key (`maas_...`).",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""One of them is enough; two credentials in one request are refused."""

PROBLEM_SCHEMA: dict[str, object] = {
    "title": "Problem",
    "description": "RFC 9457 problem details.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "Stable; listed in docs/errors.md."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "type", "message"],
                "properties": {
                    "loc": {
                        "type": "array",
                        "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                    },
                    "type": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

_BEFORE_ANY_ROUTE = {
    "description": "Refused at the edge, before any route; `docs/errors.md` lists the codes.",
    "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_IDEMPOTENCY_PARAMETER = {
    "name": IDEMPOTENCY_HEADER,
    "in": "header",
    "required": False,
    "description": "Repeat the request with the same key within 24 h and get the same answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}

_MEANINGS: Mapping[int, str] = {
    400: "Something sent is wrong in itself; `code` and `param` say what.",
    402: "A budget of money does not cover this.",
    401: "No credential, or not a good one; `code` says which.",
    403: "You may not do this, or not to this one; `code` says which.",
    404: "Not there, or another tenant's: both are answered alike.",
    408: "The body came too slowly.",
    409: "Taken, in use, or not possible in this state; `code` says which.",
    412: "It changed since the ETag in `If-Match` was read.",
    413: "More bytes than the route takes.",
    415: "A type or an encoding of body that the route does not read.",
    416: "The file has no such bytes.",
    422: "Something sent is wrong in itself; `code` and `errors` say what.",
    428: "`If-Match` is required here.",
    429: "Too often or too much at once; `Retry-After` tells when to try again.",
    460: "The bytes of this request are not those its `Upload-Checksum` is of.",
    500: "A bug of ours, logged under the request id.",
    502: "What this needs answered, and not as it should; `code` says how.",
    503: "Something this needs is down or busy; `Retry-After` tells when to try again.",
    504: "What this needs did not answer in time.",
    507: "There is no room to keep it.",
}

_WITH_A_BODY = (PayloadTooLargeError, SlowRequestError, UnsupportedMediaError, InvalidTextError)
_WITH_JSON = (InvalidJsonError, NestedTooDeepError, TooWideError)
_WITH_A_KEY = (
    InvalidIdempotencyKeyError,
    IdempotencyKeyReusedError,
    IdempotencyInProgressError,
    KeptAnswerUnreadableError,
)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def complete(document: dict[str, Any], routes: Iterable[RouteFacts]) -> None:
    """Add to FastAPI's document what it does not know of the routes."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY_SCHEMES
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = PROBLEM_SCHEMA
    examples: dict[str, Any] = {}
    responses: dict[str, Any] = {"edge": _BEFORE_ANY_ROUTE}
    # A look-up, not a search: an operation whose route is not found must not go unnoticed.
    by_key = {(route.path, route.method): route for route in routes}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            route = by_key[path, method.upper()]
            problems = list(problems_of(route))
            face = _face_of(route)
            _complete(operation, route)
            if face is None:
                examples |= {problem.code: _example(problem) for problem in problems}
                _refer(operation, problems, responses)
            else:
                schemas[face.name] = dict(face.schema)
                _refer_to_face(operation, problems, responses, face)
            _show_nulls(schemas, route)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["examples"] = dict(sorted(examples.items()))
    components["responses"] = dict(sorted(responses.items()))


def _complete(operation: dict[str, Any], route: RouteFacts) -> None:
    if route.permissions:
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
        operation["x-permissions"] = sorted(route.permissions)
    if _is_idempotent(route):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_PARAMETER)


def _show_nulls(schemas: dict[str, Any], route: RouteFacts) -> None:
    """Put back the nulls of examples, which FastAPI leaves out of its document."""
    body = route.context.body_field
    shown = (route.context.response_model, body and body.field_info.annotation)
    for model in shown:
        if isinstance(model, type) and issubclass(model, BaseModel):
            name = model.__name__.replace("[", "_").replace("]", "_")
            examples = model.model_json_schema().get("examples")
            if name in schemas and examples is not None:
                schemas[name]["examples"] = examples


def _refer(operation: dict[str, Any], problems: Iterable[Problem], shared: dict[str, Any]) -> None:
    """Point to the responses for these problems: most are the same for many operations."""
    responses = operation.setdefault("responses", {})
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    codes: dict[int, set[str]] = {}
    for problem in problems:
        codes.setdefault(problem.status, set()).add(problem.code)
    for status, known in sorted(codes.items()):
        listed = ",".join(sorted(known))
        # Named by what they hold: a number would move with every route that comes.
        name = f"{status}-{crc32(listed.encode()):08x}"
        shared[name] = _response(status, sorted(known))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    responses["4XX"] = responses["5XX"] = {"$ref": "#/components/responses/edge"}


def _face_of(route: RouteFacts) -> FaceContract | None:
    original = route.context.original_route
    return original.face if isinstance(original, StrictRoute) else None


def _refer_to_face(
    operation: dict[str, Any],
    problems: Iterable[Problem],
    shared: dict[str, Any],
    face: FaceContract,
) -> None:
    """Point to the responses for these problems, as another product's clients are told them."""
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    schema = {"$ref": f"#/components/schemas/{face.name}"}
    spelled: dict[int, dict[str, Any]] = {}
    for problem in problems:
        status, document = face.spell(problem)
        example = {"summary": problem.title, "value": document}
        spelled.setdefault(status, {})[problem.code] = example
    for status, examples in sorted(spelled.items()):
        name = f"{face.name}-{status}-{crc32(','.join(sorted(examples)).encode()):08x}"
        content = {"schema": schema, "examples": dict(sorted(examples.items()))}
        shared[name] = {
            "description": _MEANINGS[status],
            "content": {JSON_MEDIA_TYPE: content},
        }
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    edge = f"{face.name}-edge"
    shared[edge] = {**_BEFORE_ANY_ROUTE, "content": {JSON_MEDIA_TYPE: {"schema": schema}}}
    responses["4XX"] = responses["5XX"] = {"$ref": f"#/components/responses/{edge}"}


def _response(status: int, codes: Iterable[str]) -> dict[str, Any]:
    content = {
        "schema": {"$ref": "#/components/schemas/Problem"},
        "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
    }
    return {"description": _MEANINGS[status], "content": {PROBLEM_MEDIA_TYPE: content}}


def _example(problem: Problem) -> dict[str, Any]:
    document = problem_document(problem, "/api/v1/...", "01935d2e7a1b7c3e9d393b1a2f4c5d6e")
    return {"summary": problem.title, "value": document}


def problem_response(problem: Problem) -> dict[str, Any]:
    """Document an answer that is no refusal of a use case, for a route's `responses`."""
    response = _response(problem.status, ())
    response["content"][PROBLEM_MEDIA_TYPE]["examples"] = {problem.code: _example(problem)}
    return response


def problems_of(route: RouteFacts) -> Iterator[Problem]:
    """List the problems a route itself can end in; those of the edge before it are not its own."""
    if not isinstance(route.context.original_route, StrictRoute):
        return
    yield from (INTERNAL, INVALID, INVALID_URL, *OUTAGES)
    if route.method not in _READING:
        yield from WRITE_FAILURES
    yield from map(_problem_of_kind, _declared(route))


def _declared(route: RouteFacts) -> Iterator[type[MaasError]]:
    yield UnavailableError
    yield RateLimitedError
    body = route.context.body_field
    if body is not None:
        yield from _WITH_A_BODY
        yield from (InvalidFormError,) if isinstance(body.field_info, Form) else _WITH_JSON
    if _is_idempotent(route):
        yield from _WITH_A_KEY
    yield from getattr(route.context.endpoint, REFUSALS_ATTRIBUTE, ())
    yield from _declared_below(route.context.dependant)


def _declared_below(dependant: Dependant) -> Iterator[type[MaasError]]:
    for dependency in dependant.dependencies:
        yield from getattr(dependency.call, REFUSALS_ATTRIBUTE, ())
        yield from _declared_below(dependency)


def _problem_of_kind(error: type[MaasError]) -> Problem:
    said = " ".join((error.__doc__ or "").split("\n\n")[0].split())
    return Problem(
        status=status_of(error), code=error.code, title=error.title, detail=said or error.title
    )


def _is_idempotent(route: RouteFacts) -> bool:
    return getattr(route.context.endpoint, RENDER_ATTRIBUTE, None) is not None
