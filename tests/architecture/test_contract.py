"""What was promised of the API stands in its OpenAPI document, down to examples and codes."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from fastapi import FastAPI

from maas.shared.interface.contract import problems_of
from maas.shared.interface.routes import walk_routes
from tests.architecture.inspection import action_of, is_mutating, list_problems
from tests.architecture.json_schema import complaints, resolve

# The routes of auth, self, admin and platform, as the design's table has them.
PROMISED = """
POST /auth/register
POST /auth/login
POST /auth/token
POST /auth/refresh
POST /auth/switch-tenant
POST /auth/logout
POST /auth/logout-all
GET /auth/sessions
DELETE /auth/sessions/{id}
POST /auth/password/forgot
POST /auth/password/reset
POST /auth/email/verify
GET /users/profile
PUT /users/profile
POST /users/password
GET /users/quota
GET /users/tenants
GET /users/api-keys
POST /users/api-keys
GET /users/api-keys/{key_id}
PUT /users/api-keys/{key_id}
DELETE /users/api-keys/{key_id}
POST /users/api-keys/{key_id}/rotate
GET /users/api-keys/{key_id}/quota
PUT /users/api-keys/{key_id}/quota
GET /users/usage
GET /usage
GET /admin/users
POST /admin/users
GET /admin/users/{user_id}
PUT /admin/users/{user_id}
DELETE /admin/users/{user_id}
PUT /admin/users/{user_id}/suspension
DELETE /admin/users/{user_id}/suspension
PUT /admin/users/{user_id}/roles
GET /admin/users/{user_id}/quota
PUT /admin/users/{user_id}/quota
POST /admin/users/{user_id}/password-reset
POST /admin/users/bulk
GET /admin/users/export
POST /admin/invitations
DELETE /admin/invitations/{invitation_id}
GET /admin/roles
POST /admin/roles
GET /admin/roles/{name}
PUT /admin/roles/{name}
DELETE /admin/roles/{name}
GET /admin/permissions
GET /admin/service-accounts
POST /admin/service-accounts
GET /admin/service-accounts/{service_account_id}
PUT /admin/service-accounts/{service_account_id}
DELETE /admin/service-accounts/{service_account_id}
GET /admin/service-accounts/{service_account_id}/quota
PUT /admin/service-accounts/{service_account_id}/quota
GET /admin/service-accounts/{service_account_id}/api-keys/{key_id}/quota
PUT /admin/service-accounts/{service_account_id}/api-keys/{key_id}/quota
GET /admin/service-accounts/{service_account_id}/api-keys
POST /admin/service-accounts/{service_account_id}/api-keys
GET /admin/service-accounts/{service_account_id}/api-keys/{key_id}
PUT /admin/service-accounts/{service_account_id}/api-keys/{key_id}
DELETE /admin/service-accounts/{service_account_id}/api-keys/{key_id}
POST /admin/service-accounts/{service_account_id}/api-keys/{key_id}/rotate
GET /admin/tenants
POST /admin/tenants
GET /admin/tenants/{tenant_id}
PUT /admin/tenants/{tenant_id}
DELETE /admin/tenants/{tenant_id}
GET /admin/quota
GET /admin/tenants/{tenant_id}/quota
PUT /admin/tenants/{tenant_id}/quota
GET /admin/tenants/{tenant_id}/members
PUT /admin/tenants/{tenant_id}/members/{user_id}
DELETE /admin/tenants/{tenant_id}/members/{user_id}
OPTIONS /uploads
POST /uploads
GET /uploads/{upload_id}
PATCH /uploads/{upload_id}
DELETE /uploads/{upload_id}
POST /models/{model_id}/restore
PUT /models/{model_id}/tags/{tag}
DELETE /models/{model_id}/tags/{tag}
GET /models/{model_id}/grants
PUT /models/{model_id}/grants/{tenant_id}
DELETE /models/{model_id}/grants/{tenant_id}
GET /models/{model_id}/versions/{version}/transitions
GET /provider-types
GET /providers
POST /providers
GET /providers/{provider_id}
PUT /providers/{provider_id}
DELETE /providers/{provider_id}
PUT /providers/{provider_id}/credential
DELETE /providers/{provider_id}/credential
GET /providers/{provider_id}/grants
PUT /providers/{provider_id}/grants/{tenant_id}
DELETE /providers/{provider_id}/grants/{tenant_id}
POST /providers/{provider_id}/test
GET /providers/{provider_id}/discovery
GET /providers/{provider_id}/models
POST /providers/{provider_id}/models
GET /providers/{provider_id}/models/{model_id}
PUT /providers/{provider_id}/models/{model_id}
DELETE /providers/{provider_id}/models/{model_id}
GET /providers/{provider_id}/models/{model_id}/prices
POST /providers/{provider_id}/models/{model_id}/prices
GET /providers/{provider_id}/models/{model_id}/prices/{price_id}
GET /audit/rules
GET /audit/rules/{name}
PUT /audit/rules/{name}
GET /audit/stats
GET /audit/alerts
GET /audit/webhooks
POST /audit/webhooks
GET /audit/webhooks/{webhook_id}
PUT /audit/webhooks/{webhook_id}
DELETE /audit/webhooks/{webhook_id}
POST /audit/webhooks/{webhook_id}/rotate
POST /audit/webhooks/{webhook_id}/test
GET /audit/webhooks/{webhook_id}/deliveries
"""
PROMISED_UNDER_V1 = {
    "GET /v1/models",
    "GET /v1/models/{name}",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
}
MIN_DESCRIPTION_WORDS = 5
BYTES = {"application/octet-stream", "application/offset+octet-stream"}

Operation = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def undescribed(document: dict[str, Any]) -> list[str]:
    """Name operations whose description is missing, or says only what the summary says."""
    found = []
    for key, operation in operations(document):
        description = operation.get("description", "")
        is_short = len(description.split()) < MIN_DESCRIPTION_WORDS
        if is_short or description == operation["summary"] or not operation["summary"]:
            found.append(key)
    return found


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """List what is sent and answered: where, of which media type, and how it is described."""
    for key, operation in operations(document):
        parts = {"request": operation.get("requestBody", {})}
        parts |= {s: resolve(document, r) for s, r in operation["responses"].items()}
        for name, part in parts.items():
            for media_type, content in part.get("content", {}).items():
                yield f"{key} {name}", media_type, content


def examples_of(document: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    shown = [resolve(document, each)["value"] for each in content.get("examples", {}).values()]
    return shown or resolve(document, content["schema"]).get("examples", [])


def unshown(document: dict[str, Any]) -> list[str]:
    """Name bodies without an example; bytes show nothing, and the edge's codes are everywhere."""
    return [
        where
        for where, media_type, content in bodies(document)
        if media_type not in BYTES
        and not where.endswith("XX")
        and not examples_of(document, content)
    ]


def wrong_examples(document: dict[str, Any]) -> list[str]:
    return [
        f"{where}: {complaint}"
        for where, _media_type, content in bodies(document)
        for example in examples_of(document, content)
        for complaint in complaints(document, content["schema"], example)
    ]


def test_every_promised_route_is_served(app: FastAPI) -> None:
    served = {f"{route.method} {route.path}" for route in walk_routes(app)}
    promised = {" /api/v1".join(line.split(" ")) for line in PROMISED.strip().splitlines()}

    assert sorted({*promised, *PROMISED_UNDER_V1, "GET /.well-known/jwks.json"} - served) == []


def test_every_route_is_in_the_document(app: FastAPI, document: dict[str, Any]) -> None:
    faces = ("/api/", "/v1/")
    served = {f"{r.method} {r.path}" for r in walk_routes(app) if r.path.startswith(faces)}

    assert sorted(served - {key for key, _ in operations(document)}) == []


def test_every_operation_says_what_its_signature_cannot(document: dict[str, Any]) -> None:
    assert undescribed(document) == []


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    assert unshown(document) == []


def test_every_example_is_as_its_schema_says(document: dict[str, Any]) -> None:
    assert wrong_examples(document) == []


def test_no_schema_is_named_after_a_module(document: dict[str, Any]) -> None:
    assert [name for name in document["components"]["schemas"] if "__" in name] == []


def test_every_documented_code_is_one_of_ours(document: dict[str, Any]) -> None:
    known = {(problem.status, problem.code) for problem in list_problems()}
    shown = {
        (each["value"]["status"], code) for code, each in document["components"]["examples"].items()
    }

    assert sorted(shown - known) == []


def test_guarded_routes_refuse_strangers_and_the_powerless(app: FastAPI) -> None:
    lacking = []
    for route in walk_routes(app):
        codes = {problem.code for problem in problems_of(route)}
        if route.path.startswith(("/api/v1", "/v1/")) and route.permissions:
            wanted = {"unauthenticated", "invalid-credential", "invalid-token", "permission-denied"}
            lacking += [f"{route.method} {route.path} {code}" for code in wanted - codes]

    assert lacking == []


def test_every_change_may_find_the_trail_unavailable(app: FastAPI) -> None:
    assert [
        route.path
        for route in walk_routes(app)
        if (is_mutating(route) or action_of(route))
        and "audit-unavailable" not in {problem.code for problem in problems_of(route)}
    ] == []


def test_every_name_in_a_path_may_name_nothing(app: FastAPI) -> None:
    silent = []
    for route in walk_routes(app):
        codes = {problem.status for problem in problems_of(route)}
        if "{" in route.path and 404 not in codes:
            silent.append(f"{route.method} {route.path}")

    assert silent == []


class TestPlanted:
    @pytest.fixture
    def scratch(self, document: dict[str, Any]) -> dict[str, Any]:
        return deepcopy(document)

    def test_a_missing_description_is_found(self, scratch: dict[str, Any]) -> None:
        del scratch["paths"]["/api/v1/auth/login"]["post"]["description"]

        assert undescribed(scratch) == ["POST /api/v1/auth/login"]

    def test_a_missing_example_is_found(self, scratch: dict[str, Any]) -> None:
        del scratch["components"]["schemas"]["RoleUpdate"]["examples"]

        assert unshown(scratch) == ["PUT /api/v1/admin/roles/{name} request"]

    @pytest.mark.parametrize(
        "wrong", [{"roles": "developer"}, {"roles": [1]}, {"roles": [], "more": 1}, {}]
    )
    def test_a_wrong_example_is_found(self, scratch: dict[str, Any], wrong: object) -> None:
        scratch["components"]["schemas"]["RolesUpdate"]["examples"] = [wrong]

        assert len(wrong_examples(scratch)) == 2  # two routes take it
