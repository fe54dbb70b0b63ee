"""What is sent: requests as bytes, and the deployment that calls go to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from tests.deployed import Supplier, deploy, make_key, make_person, sign_in
from tests.stage import PASSWORD
from tests.upstream.process import RunningUpstream, running_upstream
from tests.upstream.scripts import Script

MODEL: Final = "load-chat"
SUPPLIER_KEY: Final = "sk-load-upstream"
CALLER: Final = "load-caller"
TOKENS: Final = 16
CALL: Final[dict[str, object]] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What does the river carry past the old mills?"}],
    "max_tokens": 64,
}


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def request(method: str, path: str, credential: str, body: object = None) -> str:
    sent = "" if body is None else json.dumps(body)
    head = f"{method} {path} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {credential}\r\n"
    if sent:
        head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    return f"{head}\r\n{sent}"


@contextmanager
def scripted_upstream() -> Iterator[RunningUpstream]:
    with running_upstream(keys=(SUPPLIER_KEY,)) as upstream:
        upstream.put("models", {"models": [MODEL]})
        upstream.script(MODEL, Script(tokens=TOKENS))
        yield upstream


def prepare_calls(url: str, upstream: RunningUpstream, token: str) -> str:
    """Deploy the model and make a key that may call it."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        supplier = Supplier.connect(client, upstream, key=SUPPLIER_KEY)
        deploy(client, MODEL, [supplier.add_model(MODEL)])
        make_person(client, CALLER)
        with sign_in(url, CALLER, PASSWORD) as caller:
            _, key = make_key(caller, "load", ["inference:call"])
    return key
