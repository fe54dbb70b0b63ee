"""What every answer must be, beyond what the library checks by itself."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeAlias

import schemathesis
from schemathesis import Case, CheckContext, Response

AnyCase: TypeAlias = Case[Any]

PROBLEM: Final = "application/problem+json"
JSON: Final = "application/json"
FACE: Final = "/v1/"
"""Below it answers are spelled as OpenAI's are."""

EDGE: Final = {
    (404, "route-not-found"),
    (404, "not-found"),
    (405, "method-not-allowed"),
    (414, "uri-too-long"),
    (431, "headers-too-large"),
    (400, "bad-request"),
}
"""What is answered before a route is found, so no operation lists it."""

ON: Final[Mapping[str, Mapping[str, object]]] = {
    "not_a_server_error": {},
    "status_code_conformance": {},
    "content_type_conformance": {},
    "response_headers_conformance": {},
    "response_schema_conformance": {},
    # 404, 409, 412 and 428 may come before the body is judged, 402 before what a call asks for.
    "negative_data_rejection": {
        "expected-statuses": [
            *("400", "401", "402", "403", "404", "405", "406", "409", "412", "413", "414", "415"),
            *("416", "422", "428", "429", "431"),
        ]
    },
    "ignored_auth": {},
    "use_after_free": {},
    "ensure_resource_availability": {},
    "unsupported_method": {},
    "missing_required_header": {
        "expected-statuses": ["400", "401", "403", "404", "409", "412", "415", "422", "428"]
    },
    "allow_header_conformance": {},
}
OFF: Final = {
    # Rules between fields and the state of things (a name is taken, a password is common) refuse
    # what each schema by itself allows, with the codes that the operation lists.
    "positive_data_acceptance",
    # It asks as a second person what the first may read. Members of one tenant share what is the
    # tenant's, and what is another tenant's is asked for in the walk over all routes.
    "object_level_authorization",
}
ASKING: Final = {"ignored_auth"}
"""Off in the random phase: it asks again, and there the library goes through a scenario's calls
while its checks add to them. The scenario ends in an error, and the session with it."""

CREDENTIALS: Final = {"authorization", "x-api-key"}

TRACES: Final = re.compile(
    r"Traceback \(most recent call last\)|File \"[^\"]+\", line \d+|sqlalchemy|asyncpg|psycopg"
    r"|\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM)\s[^\"]{0,200}\b(?:FROM|SET|VALUES|WHERE)\b"
    r"|/site-packages/|\.py:\d+|/src/maas/|redis\.exceptions|pg_catalog"
)
"""What shows the machinery; what a request said itself is taken out before."""


def documented_codes(codes_table: str) -> frozenset[str]:
    """Read the codes of `docs/errors.md`."""
    return frozenset(re.findall(r"^\| \d+ \| `([a-z0-9-]+)`", codes_table, re.MULTILINE))


class Contract:
    """Facts of the document that its own checks do not use."""

    def __init__(
        self, document: Mapping[str, Any], codes: Collection[str], secrets: Collection[str]
    ) -> None:
        self._document = document
        self._codes = codes
        self._secrets = tuple(secrets)

    def declared(self, case: AnyCase, status: int) -> set[str] | None:
        """List the codes of an operation's status, nothing if it does not have that status."""
        operation = self._document["paths"][case.operation.path][case.operation.method.lower()]
        response = operation["responses"].get(str(status))
        if response is None:
            return None
        reference = response.get("$ref")
        if reference is not None:
            response = self._document["components"]["responses"][reference.rsplit("/", 1)[1]]
        examples = [
            example
            for content in response.get("content", {}).values()
            for example in content.get("examples", {}).items()
        ]
        if is_openai(case) and status >= 400:
            return {str(example["value"]["error"]["code"]) for _, example in examples}
        return {code for code, _ in examples}

    def takes_credentials(self, case: AnyCase) -> bool:
        operation = self._document["paths"][case.operation.path][case.operation.method.lower()]
        return bool(operation.get("security"))

    def is_documented(self, code: str) -> bool:
        return code in self._codes

    def leak(self, response: Response) -> str | None:
        """Tell what an answer shows that nobody may see."""
        text = response.content.decode("utf-8", "replace") + json.dumps(dict(response.headers))
        for secret in self._secrets:
            if secret in text:
                return "a secret of the platform"
        if response.status_code >= 400:
            found = TRACES.search(text)
            if found is not None and found[0] not in _said(response):
                return found[0]
        return None


def _said(response: Response) -> str:
    body = response.request.body
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    return f"{response.request.url} {text}"


def add_checks(  # noqa: C901  each check is a function of its own
    contract: Contract,
) -> None:
    """Register ours, for this process."""

    @schemathesis.check
    def refusal_is_declared(_ctx: CheckContext, response: Response, case: AnyCase) -> None:
        status = response.status_code
        if status < 400:
            if _is_own_method(case, response):
                assert contract.declared(case, status) is not None, f"{status} is not declared"
            return
        code = _code_of(case, response)
        if not is_openai(case):
            assert contract.is_documented(code), f"docs/errors.md has no `{code}`"
        if (status, code) not in EDGE and _is_own_method(case, response):
            declared = contract.declared(case, status)
            assert declared is not None, f"{status} {code} is not declared"
            assert code in declared, f"{status} does not list `{code}`, but {sorted(declared)}"

    @schemathesis.check
    def names_its_request(_ctx: CheckContext, response: Response, case: AnyCase) -> None:
        (told,) = response.headers.get("x-request-id", ("",))
        assert told, "no X-Request-ID"
        if response.status_code >= 400 and not is_openai(case) and response.content:
            assert response.json()["request_id"] == told

    @schemathesis.check
    def tells_nothing_more(_ctx: CheckContext, response: Response, case: AnyCase) -> None:
        leak = contract.leak(response)
        assert leak is None, f"shows {leak}"

    @schemathesis.check
    def strangers_are_asked(_ctx: CheckContext, response: Response, case: AnyCase) -> None:
        if response.status_code == 401:
            assert response.headers.get("www-authenticate"), "no WWW-Authenticate"
        elif response.status_code < 400 and _is_own_method(case, response):
            sent = {name.lower() for name in response.request.headers}
            assert sent & CREDENTIALS or not contract.takes_credentials(case), "asks for nobody"


def is_openai(case: AnyCase) -> bool:
    return str(case.operation.path).startswith(FACE)


def _is_own_method(case: AnyCase, response: Response) -> bool:
    """Tell whether this is the operation's own method, and not one tried in its place."""
    return str(response.request.method).upper() == str(case.operation.method).upper()


def _code_of(case: AnyCase, response: Response) -> str:
    """Read the code of a refusal, in the form it must have here."""
    if response.request.method == "HEAD":
        return "method-not-allowed"
    (media_type,) = response.headers.get("content-type", ("",))
    told = response.json()
    if is_openai(case) and media_type.partition(";")[0] == JSON:
        error = told["error"]
        assert {"message", "type", "param", "code"} == set(error), f"not OpenAI's form: {told}"
        return str(error["code"])
    assert media_type == PROBLEM, f"a refusal is {media_type or 'of no type'}"
    assert told["status"] == response.status_code, "the problem names another status"
    return str(told["code"])
