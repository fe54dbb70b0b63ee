"""Who calls what: deployments over the scripted upstream, people, their keys, and what binds them.

Some budgets are far away, and some run out in the middle: both must hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from tests.deployed import (
    CURRENCY,
    PRICES,
    Supplier,
    deploy,
    make_key,
    make_person,
    set_quotas,
    sign_in,
)
from tests.stage import PASSWORD
from tests.upstream.process import RunningUpstream
from tests.upstream.scripts import Script

SUPPLIER_KEY: Final = "sk-streams-upstream"
TOKENS: Final = 18
CHUNK_SECONDS: Final = 0.08
STEADY: Final = Script(tokens=TOKENS, chunk_delay=CHUNK_SECONDS)

CHEAP: Final = {
    "currency": CURRENCY,
    "input": "0.0003",
    "output": "0.0007",
    "request": "0.0000004",
}
"""A token costs less than a nano-unit, and a whole call less than a micro-unit."""

SILENT: Final = "bills-nothing"
DEPLOYMENTS: Final[Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]]] = {
    "steady": (PRICES, ("steady-model",)),
    "spared": (PRICES, ("first-model", "second-model")),
    "cheap": (CHEAP, ("cheap-model",)),
    "silent": (PRICES, (SILENT,)),
}
"""The price of each and what is behind it, the first to be asked first."""

MODELS: Final = tuple(model for _, models in DEPLOYMENTS.values() for model in models)

FAR: Final = 10**13
TENANT_LIMITS: Final = {"requests": FAR, "tokens": FAR, "cost": FAR}
PEOPLE: Final[Mapping[str, Mapping[str, int]]] = {
    "ada": {"tokens": FAR},
    "ben": {"cost": 100_000_000, "tokens": FAR},
    "cleo": {"requests": FAR},
}
KEYS: Final[Mapping[str, tuple[Mapping[str, int], Mapping[str, int]]]] = {
    "ada": ({"cost": FAR}, {"tokens": 12_000}),
    "ben": ({"tokens": FAR}, {"requests": FAR}),
    "cleo": ({"tokens": FAR, "cost": FAR}, {"requests": 150}),
}
"""Two keys of each person, with what binds them beside what binds the person and the tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    keys: tuple[str, ...]


def make_world(url: str, password: str, upstream: RunningUpstream) -> World:
    upstream.put("keys", {"keys": [SUPPLIER_KEY]})
    upstream.put("models", {"models": list(MODELS)})
    upstream.script("*", STEADY)
    with sign_in(url, "root", password) as root:
        supplier = Supplier.connect(root, upstream, key=SUPPLIER_KEY)
        for name, (prices, models) in DEPLOYMENTS.items():
            deploy(root, name, [supplier.add_model(model, prices) for model in models])
        set_quotas(root, f"admin/tenants/{DEFAULT_TENANT_ID}", TENANT_LIMITS)
        keys = [key for name in PEOPLE for key in _make_keys(root, name)]
    return World(keys=tuple(keys))


def _make_keys(root: httpx.Client, name: str) -> list[str]:
    """Make a person, bind them, and give them keys that are bound as well."""
    set_quotas(root, f"admin/users/{make_person(root, name)}", PEOPLE[name])
    keys = []
    with sign_in(str(root.base_url), name, PASSWORD) as person:
        for number, limits in enumerate(KEYS[name]):
            key_id, key = make_key(person, f"{name}-{number}", ["inference:call"])
            set_quotas(person, f"users/api-keys/{key_id}", limits)
            keys.append(key)
    return keys
