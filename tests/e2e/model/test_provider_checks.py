"""Suppliers that are asked: tests with each outcome, and what they list, over the wire."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.e2e.conftest import Person
from tests.upstream.certificates import VARIANTS, Authority
from tests.upstream.desk import Desk
from tests.upstream.server import Upstream, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

KEY = "sk-canary-0123456789abcdef"


class Supplier:
    """The scripted upstream, at ports the operator lists, plain and with each certificate."""

    def __init__(self, ports: dict[str, int], ca_file: Path) -> None:
        self.desk = Desk(keys=frozenset({KEY}))
        self.ports = ports
        self.ca_file = ca_file

    def url(self, script: str | None = None, *, tls: str | None = None) -> str:
        under = "" if script is None else f"/as/{script}"
        scheme = "http" if tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.ports[tls or 'plain']}{under}/v1"


@pytest.fixture
async def supplier(tmp_path: Path) -> AsyncIterator[Supplier]:
    authority = Authority.make()
    made = Supplier({}, authority.write(tmp_path / "company-ca.pem"))
    upstream = Upstream(made.desk)
    async with serving(upstream) as made.ports["plain"]:
        listening = [serving(upstream, tls=authority.context(variant)) for variant in VARIANTS]
        for variant, each in zip(VARIANTS, listening, strict=True):
            made.ports[variant] = await each.__aenter__()
        yield made
        for each in listening:
            await each.__aexit__(None, None, None)


@pytest.fixture
def settings(make_settings: MakeSettings, supplier: Supplier) -> Settings:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        supplier.ports["closed"] = unused.getsockname()[1]
    targets = [f"127.0.0.1:{port}" for port in supplier.ports.values()]
    return make_settings(
        outgoing={
            "allowed_private_targets": (*targets, "nowhere.invalid:443"),
            "ca_file": str(supplier.ca_file),
        }
    )


@pytest.fixture
async def root(operator: Person, api: httpx.AsyncClient) -> httpx.AsyncClient:
    """Call as the operator, who may connect what lies at private targets."""
    api.headers.update(operator.headers)
    return api


async def connect(
    root: httpx.AsyncClient, url: str, *, key: str | None = KEY, kind: str = "openai-compatible"
) -> str:
    """Connect a supplier, and tell its path."""
    made = await root.post("providers", json={"name": url, "type": kind, "base_url": url})
    assert made.status_code == 201, made.text
    path = f"providers/{made.json()['id']}"
    if key is not None:
        put = await root.put(f"{path}/credential", json={"api_key": key}, headers={"If-Match": "*"})
        assert put.status_code == 200, put.text
    return path


async def outcome_of(root: httpx.AsyncClient, path: str, **body: str) -> tuple[str, int | None]:
    answer = await root.post(f"{path}/test", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert KEY not in answer.text
    assert KEY[-6:] not in answer.text
    assert told["message"]
    assert told["advice"]
    return told["outcome"], told["status"]


async def test_a_supplier_that_answers_is_told_apart_from_each_fault(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    expected = {
        "honest": ("ok", 200),
        "knows-more-fields": ("ok", 200),
        "mistakes-its-type": ("ok", 200),
        "says-401-and-the-key": ("credential-refused", 401),
        "says-402": ("credit-used-up", 402),
        "says-429-quota": ("credit-used-up", 429),
        "says-403": ("not-permitted", 403),
        "says-404": ("address-wrong", 404),
        "says-html": ("address-wrong", 200),
        "says-html-404": ("address-wrong", 404),
        "says-invalid-json": ("address-wrong", 200),
        "says-other-json": ("address-wrong", 200),
        "says-nothing": ("address-wrong", 200),
        "says-429": ("rate-limited", 429),
        "says-500": ("supplier-failed", 500),
        "says-529": ("supplier-failed", 529),
        "redirects": ("redirected", 307),
        "says-too-much": ("answer-too-large", None),
        "speaks-no-http": ("answer-odd", None),
        "hangs-up": ("answer-odd", None),
        "breaks-off": ("answer-odd", None),
    }

    found = {
        script: await outcome_of(root, await connect(root, supplier.url(script)))
        for script in expected
    }

    assert found == expected
