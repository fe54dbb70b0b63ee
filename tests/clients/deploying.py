"""What clients are tried against: suppliers, deployments and a key, made through the API."""

import secrets
from dataclasses import dataclass
from typing import Any, Final

import httpx

API: Final = "/api/v1"
EMBEDDER: Final = "text-embedding-3-small"
FAULTS: Final = ("says-429", "says-500", "says-401", "breaks-off", "fails-midway")
"""Each is a deployment of that name, at an upstream of either kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """Where a client calls, with what key, and the names it can call by.

    A client takes what is called `gpt-5` for a model that reasons.
    """

    url: str
    key: str
    openai: str = "gpt-5-scripted"
    anthropic: str = "claude-scripted"
    vectors: str = "vectors"


def deploy(client: httpx.Client, upstream: str) -> Face:
    """Connect the scripted upstream on both its sides, as somebody who may reach private targets.

    `client` is signed in, and called by the URL of the platform.
    """
    face = Face(url=f"{client.base_url}".rstrip("/") + "/v1", key=make_key(client))
    openai = _provider(client, "openai-compatible", f"{upstream}/v1")
    anthropic = _provider(client, "anthropic", upstream)
    _deployment(client, face.openai, _model(client, openai, "thinks", "chat", "completions"))
    _deployment(client, face.anthropic, _model(client, anthropic, "claude-upstream", "chat"))
    _deployment(client, face.vectors, _model(client, openai, EMBEDDER, "embeddings"))
    for fault in FAULTS:
        _deployment(client, fault, _model(client, openai, fault, "chat"))
        _deployment(client, f"anthropic/{fault}", _model(client, anthropic, fault, "chat"))
    return face


def deploy_version(client: httpx.Client, name: str, model: str, version: str = "1.0.0") -> None:
    """Deploy a version of the registry, which the platform's own runtime answers for."""
    found = client.get(f"{API}/models", params={"q": model}).raise_for_status().json()["items"]
    model_id = next(each["id"] for each in found if each["name"] == model)
    target = {"kind": "local", "model_id": model_id, "version": version}
    _made(client, "deployments", {"name": name, "targets": [target]})


def make_key(client: httpx.Client) -> str:
    body = {"name": f"of a client {secrets.token_hex(4)}", "scopes": ["inference:call"]}
    return str(_made(client, "users/api-keys", body)["key"])


def _provider(client: httpx.Client, kind: str, url: str) -> str:
    made = _made(client, "providers", {"name": f"scripted {kind}", "type": kind, "base_url": url})
    path = f"providers/{made['id']}"
    client.put(
        f"{API}/{path}/credential",
        json={"api_key": f"sk-{secrets.token_hex(16)}"},
        headers={"If-Match": "*"},
    ).raise_for_status()
    return path


def _model(client: httpx.Client, provider: str, name: str, *capabilities: str) -> str:
    body = {"name": name, "capabilities": capabilities}
    return str(_made(client, f"{provider}/models", body)["id"])


def _deployment(client: httpx.Client, name: str, model: str) -> None:
    targets = [{"kind": "provider", "provider_model_id": model}]
    _made(client, "deployments", {"name": name, "targets": targets})


def _made(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"{API}/{path}", json=body)
    assert answer.is_success, answer.text
    made: dict[str, Any] = answer.json()
    return made
