"""Deployments over the scripted upstream, and somebody whose calls budgets bind in each scope.

All of it is made as an operator makes it, over HTTP.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tests.stage import LOGIN, PASSWORD, USERS
from tests.upstream.process import RunningUpstream

API: Final = "/api/v1"
CALLS: Final = "/v1/chat/completions"
ANY_VERSION: Final = {"If-Match": "*"}
CURRENCY: Final = "EUR"
PRICES: Final = {"currency": CURRENCY, "input": "2.5", "output": "10"}
"""Of a million tokens each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplier:
    """A provider with its key, whose models are added one by one."""

    client: httpx.Client
    path: str

    @classmethod
    def connect(cls, client: httpx.Client, upstream: RunningUpstream, *, key: str) -> "Supplier":
        body = {
            "name": f"upstream-{upstream.port}",
            "type": "openai",
            "base_url": f"{upstream.url}/v1",
        }
        path = f"{API}/providers/{_made(client.post(f'{API}/providers', json=body))['id']}"
        sent = client.put(f"{path}/credential", json={"api_key": key}, headers=ANY_VERSION)
        sent.raise_for_status()
        return cls(client=client, path=path)

    def add_model(self, name: str, prices: Mapping[str, str] | None = PRICES) -> str:
        """Add what the supplier offers under this name, and tell its id."""
        body = {"name": name, "capabilities": ["chat"], "max_output_tokens": 4_096}
        model_id = str(_made(self.client.post(f"{self.path}/models", json=body))["id"])
        if prices is not None:
            _made(self.client.post(f"{self.path}/models/{model_id}/prices", json=prices))
        return model_id


def deploy(client: httpx.Client, name: str, model_ids: Sequence[str]) -> str:
    """Give models one name, the first to be asked first; tell the deployment's id."""
    targets = [
        {"kind": "provider", "provider_model_id": model_id, "priority": priority}
        for priority, model_id in enumerate(model_ids)
    ]
    answer = client.post(f"{API}/deployments", json={"name": name, "targets": targets})
    return str(_made(answer)["id"])


def set_quotas(client: httpx.Client, path: str, limits: Mapping[str, int]) -> None:
    """Set what there may be of each meter in a month."""
    quotas = [
        {
            "meter": meter,
            "period": "month",
            "limit": limit,
            **({"currency": CURRENCY} if meter == "cost" else {}),
        }
        for meter, limit in limits.items()
    ]
    sent = client.put(f"{API}/{path}/quota", json={"quotas": quotas}, headers=ANY_VERSION)
    sent.raise_for_status()


def make_person(client: httpx.Client, name: str) -> str:
    """Make somebody who may call models, and tell their id."""
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    return str(_made(client.post(USERS, json={**body, "roles": ["user"]}))["id"])


def sign_in(url: str, name: str, password: str) -> httpx.Client:
    body = {"username": name, "password": password}
    answer = httpx.post(f"{url}{LOGIN}", json=body, trust_env=False)
    headers = {"Authorization": f"Bearer {_made(answer)['access_token']}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)


def make_key(client: httpx.Client, name: str, scopes: Iterable[str]) -> tuple[str, str]:
    """Make an API key of whoever is signed in; tell its id and itself."""
    body = {"name": name, "scopes": list(scopes)}
    made = _made(client.post(f"{API}/users/api-keys", json=body))
    return str(made["id"]), str(made["key"])


def _made(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        message = f"{answer.request.method} {answer.request.url.path}: {answer.text}"
        raise RuntimeError(message)
    told: dict[str, Any] = answer.json()
    return told
