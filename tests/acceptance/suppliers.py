"""Suppliers' keys and the private network: neither leaks, whoever asks and however.

The real platform and the scripted upstream, which notes every connection that reaches it.
"""

import asyncio
import base64
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any, Final

import asyncpg
import httpx
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from tests.acceptance.isolation import connection_arguments
from tests.acceptance.platforms import Person, Platform, free_port, running
from tests.acceptance.sealing import change_key
from tests.acceptance.verdict import Finding, Verdict, all_of
from tests.e2e.canaries.sinks import read_redis
from tests.notations import INSIDE, INSIDE_6, dotted, plain_forms, wrapped_forms
from tests.stage import LOGIN, PASSWORD, USERS
from tests.upstream.ledger import digest_of
from tests.upstream.process import RunningUpstream, running_upstream
from tests.upstream.scripts import Script

API: Final = "/api/v1"
PROVIDERS: Final = f"{API}/providers"
WEBHOOKS: Final = f"{API}/audit/webhooks"
SPELLED: Final = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.0.0.192")
"""Written in each notation; the other addresses only plainly."""

OUTCOMES: Final[Mapping[str, str]] = {
    "": "ok",
    "says-401-and-the-key": "credential-refused",
    "says-403": "not-permitted",
    "says-404": "address-wrong",
    "says-html": "address-wrong",
    "says-html-404": "address-wrong",
    "says-429": "rate-limited",
    "says-402": "credit-used-up",
    "says-429-quota": "credit-used-up",
    "says-500": "supplier-failed",
    "says-503": "supplier-failed",
    "says-invalid-json": "address-wrong",
    "says-other-json": "address-wrong",
    "says-nothing": "address-wrong",
    "breaks-off": "answer-odd",
    "hangs-up": "answer-odd",
    "speaks-no-http": "answer-odd",
    "says-too-much": "answer-too-large",
    "redirects": "redirected",
    "never-answers": "timed-out",
}
"""What a connection test says of each way to answer."""

FLUSH_SECONDS: Final = 4.0
PLAIN: Final = "named-for-all-to-see"
"""In the names of suppliers: where it is not found, nobody looked."""

END: Final = "that was all"


def calls_stay_outside(folder: Path) -> Verdict:
    with running_upstream() as upstream, running_upstream() as listed:
        ports = f"443,{upstream.port}"
        target = f"127.0.0.1:{listed.port}"
        settings = {
            "MAAS_OUTGOING__ALLOWED_PORTS": ports,
            "MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": target,
            "MAAS_OUTGOING__ALLOWED_WEBHOOK_TARGETS": target,
        }
        with running(folder, settings=settings) as platform:
            operator = platform.sign_in()
            with operator.client() as root, _tenant_admin(operator).client() as admin:
                findings = [
                    *_refuse_addresses(admin, upstream.port),
                    *_keep_the_list(root, admin, listed),
                    *_refuse_ways_in(admin, upstream, listed),
                ]
        reached = upstream.ledger()["connections"]
    # One is that of who asks for it.
    return all_of(*findings, (reached == 1, f"{reached - 1} connections reached what lies inside"))


def connection_tests(folder: Path) -> Verdict:
    key, nobody = f"sk-canary-{secrets.token_hex(24)}", free_port()
    tls_folder = folder / "tls"
    tls_folder.mkdir()
    with running_upstream(tls_folder=tls_folder) as upstream:
        urls = {_way(upstream, name): outcome for name, outcome in OUTCOMES.items()}
        urls |= {
            f"https://127.0.0.1:{port}/v1": "ok" if variant == "good" else "certificate-refused"
            for variant, port in upstream.tls.items()
        }
        urls[f"https://127.0.0.1:{upstream.port}/v1"] = "tls-failed"
        urls[f"http://127.0.0.1:{nobody}/v1"] = "connection-refused"
        urls[f"http://nowhere.invalid:{nobody}/v1"] = "name-unresolved"
        settings = {
            "MAAS_OUTGOING__CA_FILE": str(upstream.ca_file),
            "MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": ",".join(
                sorted({url.split("/")[2] for url in urls})
            ),
        }
        with running(folder, settings=settings) as platform, platform.sign_in().client() as client:
            told = {url: _test(client, url, key) for url in urls}
            missing = _test(client, _way(upstream, ""), None)
            unknown = _test(client, _way(upstream, ""), key, model="nobody-knows-it")
    wrong = [
        f"{url} {_outcome(told[url])}, not {outcome}"
        for url, outcome in urls.items()
        if _outcome(told[url]) != outcome
    ]
    every = [*told.values(), missing, unknown]
    silent = sum(not (each.get("message") and each.get("advice")) for each in every)
    return all_of(
        (
            not wrong,
            f"{len(urls) - len(wrong)} of {len(urls)} told by their code {wrong[:3] or ''}",
        ),
        (_outcome(missing) == "credential-missing", f"without a key: {_outcome(missing)}"),
        (_outcome(unknown) == "model-unknown", f"of no such model: {_outcome(unknown)}"),
        (not silent, f"{silent} without words or advice"),
        (not any(key in json.dumps(each) for each in every), "none quotes the key"),
    )


def _outcome(told: Mapping[str, Any]) -> str | None:
    """Read what a test came to, or the code of what refused it."""
    return told.get("outcome") or told.get("code")


def _way(upstream: RunningUpstream, name: str) -> str:
    return f"{upstream.url}/as/{name}/v1" if name else f"{upstream.url}/v1"


def _test(
    client: httpx.Client, url: str, key: str | None, *, model: str | None = None
) -> dict[str, Any]:
    """Connect a supplier with a key or none, and test it."""
    body = {"name": secrets.token_hex(8), "type": "openai", "base_url": url}
    path = f"{PROVIDERS}/{client.post(PROVIDERS, json=body).raise_for_status().json()['id']}"
    if key is not None:
        _put(client, f"{path}/credential", {"api_key": key}, name=secrets.token_hex(8))
    answer = client.post(f"{path}/test", json={"model": model}, timeout=120)
    told: dict[str, Any] = answer.json()
    return told


def canary_credential(folder: Path) -> Verdict:
    keys = [f"sk-canary-{secrets.token_hex(24)}" for _ in range(3)]
    with running_upstream() as upstream:
        settings = {
            "MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": f"127.0.0.1:{upstream.port}",
            "MAAS_LOG_LEVEL": "DEBUG",
            "MAAS_SUPPLIERS__CHECK_SECONDS": "1",
        }
        with running(folder, settings=settings) as platform:
            texts, findings = _have_kept(platform, upstream, keys)
        calls = upstream.ledger()["calls"]
    # What the servers wrote lies open once they have ended: tables, deleted rows, logs, cores.
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    named = sum(PLAIN.encode() in text for text in files.values())
    texts |= files
    found = [name for name, text in texts.items() if any(_holds(text, key) for key in keys)]
    digests = {digest_of(key) for key in keys}
    used = sum(call["key_digest"] in digests for call in calls)
    return all_of(
        (not found, f"{len(found)} of {len(texts)} places hold a canary {found[:3] or ''}".strip()),
        (named > 0, f"what is no secret is in {named} files"),
        *findings,
        (used > len(keys), f"{used} calls went out with one"),
    )


def _tenant_admin(operator: Person) -> Person:
    """Make somebody who holds everything in the tenant, and nothing of the platform."""
    name = "tenant-admin"
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    with operator.client() as client:
        client.post(USERS, json={**body, "roles": ["admin"]}).raise_for_status()
        answer = client.post(LOGIN, json={"username": name, "password": PASSWORD})
    token = answer.raise_for_status().json()["access_token"]
    return Person(url=operator.url, name=name, token=token)


def _hosts() -> Iterator[str]:
    yield from INSIDE
    yield from (f"[{each}]" for each in INSIDE_6)
    for each in SPELLED:
        address = IPv4Address(each)
        yield from plain_forms(address)
        for form in wrapped_forms(address):
            yield from (f"[{form}]", f"[{form.exploded}]", f"[{dotted(form)}]")


def _offer(client: httpx.Client, url: str, name: str = "supplier") -> httpx.Response:
    body = {"name": name, "type": "openai-compatible", "base_url": url}
    return client.post(PROVIDERS, json=body)


def _refuse_addresses(admin: httpx.Client, port: int) -> Iterator[Finding]:
    urls = [f"https://{host}:{port}/v1" for host in dict.fromkeys(_hosts())]
    urls += [f"https://me:secret@127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}/v1"]
    codes = Counter(_offer(admin, url).json().get("code") for url in urls)
    told = dict(codes)
    yield codes["target-refused"] == len(urls), f"{len(urls)} addresses refused {told}"
    hooks = Counter(
        admin.post(WEBHOOKS, json={"name": f"hook {number}", "url": url}).status_code
        for number, url in enumerate(urls)
    )
    yield set(hooks) == {422}, f"for webhooks too {dict(hooks)}"


def _keep_the_list(
    root: httpx.Client, admin: httpx.Client, listed: RunningUpstream
) -> Iterator[Finding]:
    """The operator's list lets the operator in, and is not there for anybody else."""
    inside = f"{listed.url}/v1"
    refused, unlisted = _offer(admin, inside), _offer(admin, "http://127.0.0.1:1/v1")
    told = [(each.status_code, each.json().get("detail")) for each in (refused, unlisted)]
    yield told[0] == told[1] and told[0][0] == 422, "what is listed looks like what is not"
    made = _offer(root, inside, "in the rack")
    yield (made.status_code, made.json().get("reach")) == (201, "private"), "the operator is let in"
    path = f"{PROVIDERS}/{made.json().get('id')}"
    changes = [
        admin.put(path, json={"base_url": "https://1.1.1.1/v1"}, headers={"If-Match": "*"}),
        admin.put(path, json={"description": "mine"}, headers={"If-Match": "*"}),
        admin.put(f"{path}/credential", json={"api_key": "sk"}, headers={"If-Match": "*"}),
        admin.delete(path, headers={"If-Match": "*"}),
    ]
    codes = [change.json().get("code") for change in changes]
    yield codes == ["provider-of-operator"] * 4, f"a tenant's admin changes nothing of it {codes}"


def _refuse_ways_in(
    admin: httpx.Client, upstream: RunningUpstream, listed: RunningUpstream
) -> Iterator[Finding]:
    """A name that leads inwards, and a redirect there, as the caller of both meets them."""
    named = _try_webhook(admin, "by name", f"https://localhost:{upstream.port}/v1/models")
    yield named == (None, "no-public-address"), f"a name that leads inwards: {named[1]}"
    inwards = _offer(admin, f"https://localhost:{upstream.port}/v1", "by name").raise_for_status()
    asked = admin.post(f"{PROVIDERS}/{inwards.json()['id']}/test", json={"model": "any"}).json()
    yield _outcome(asked) == "no-public-address", f"of a supplier: {_outcome(asked)}"
    listed.script("aside", Script(redirect=f"{upstream.url}/v1/models"))
    led = _try_webhook(admin, "by redirect", f"{listed.url}/as/aside/v1/chat/completions")
    yield led[0] == 307, f"a redirect inwards is answered {led[0]} and not followed"


def _try_webhook(client: httpx.Client, name: str, url: str) -> tuple[int | None, str | None]:
    made = client.post(WEBHOOKS, json={"name": name, "url": url}).raise_for_status().json()
    tested = client.post(f"{WEBHOOKS}/{made['id']}/test").raise_for_status().json()
    return tested["status"], tested["error"]


def _have_kept(
    platform: Platform, upstream: RunningUpstream, keys: Sequence[str]
) -> tuple[dict[str, bytes], list[Finding]]:
    """Have keys set, used and deleted; give all that was said meanwhile, by whom it was."""
    said: list[bytes] = []
    redis_url = platform.environment_of("serve")["MAAS_REDIS__URL"]
    with _overheard(redis_url) as commands, platform.sign_in().client() as client:
        client.event_hooks["response"] = [_keep(said)]
        opened = _use(client, upstream, keys)
        sealed = asyncio.run(_count_sealed(platform))
        retired = asyncio.run(change_key(platform))
        after = client.post(f"{PROVIDERS}/{opened[0]}/test", json={}).json()
        # The worker asks after their health meanwhile.
        time.sleep(FLUSH_SECONDS)
        for provider in opened:
            client.delete(f"{PROVIDERS}/{provider}", headers={"If-Match": "*"}).raise_for_status()
        left = asyncio.run(_count_sealed(platform))
        time.sleep(FLUSH_SECONDS)
        client.get("/metrics")
        texts = asyncio.run(_read_redis(redis_url))
    texts["commands to Redis"] = b"\n".join(commands)
    is_heard = PLAIN.encode() in texts["commands to Redis"]
    texts |= {f"answer {number}": text for number, text in enumerate(said)}
    return texts, [
        (is_heard, f"{len(commands)} commands to Redis"),
        (len(said) > len(keys), f"{len(said)} answers"),
        (sealed == len(opened) > 0, f"{sealed} keys kept sealed"),
        (
            bool(retired) and _outcome(after) == "ok",
            f"used after the sealing key was changed: {_outcome(after)}",
        ),
        (left == 0, f"{left} after their suppliers were deleted"),
    ]


@contextmanager
def _overheard(redis_url: str) -> Iterator[list[bytes]]:
    """Listen to all that Redis is told: tasks are gone from their queue once they are taken."""
    commands: list[bytes] = []
    client = BlockingRedis.from_url(redis_url)

    def listen(monitor: Any) -> None:
        for command in monitor.listen():
            commands.append(command["command"].encode())
            if END in command["command"]:
                return

    untyped: Any = client
    with untyped.monitor() as monitor:
        thread = Thread(target=listen, args=(monitor,), daemon=True)
        thread.start()
        yield commands
        client.echo(END)
        thread.join(FLUSH_SECONDS)


def _keep(said: list[bytes]) -> Callable[[httpx.Response], None]:
    def keep(response: httpx.Response) -> None:
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        said.append(head.encode() + b"\n" + response.read())

    return keep


def _use(client: httpx.Client, upstream: RunningUpstream, keys: Sequence[str]) -> list[str]:
    """Set keys, set them anew, and have them sent where answers quote them whole."""
    opened = []
    for number, way in enumerate(("v1", "as/says-401-and-the-key/v1", "as/says-invalid-json/v1")):
        url = f"{upstream.url}/{way}"
        made = _offer(client, url, f"{PLAIN} {number}").raise_for_status().json()
        path = f"{PROVIDERS}/{made['id']}"
        opened.append(made["id"])
        for key in (*keys[1:], keys[0]):
            _put(client, f"{path}/credential", {"api_key": key}, name=f"{number}-{key[-4:]}")
        for wrong in ({"api_key": keys[0], "more": keys[1]}, {"api_key": [keys[0]]}, keys[2]):
            client.put(f"{path}/credential", json=wrong, headers={"If-Match": "*"})
        client.put(path, json={"name": keys[0] * 100}, headers={"If-Match": "*"})
        for body in ({}, {"model": "gpt-4o"}, {"model": "nobody"}):
            client.post(f"{path}/test", json=body)
        client.get(f"{path}/discovery")
        client.get(path)
    return opened


def _put(client: httpx.Client, path: str, body: Mapping[str, Any], *, name: str) -> None:
    headers = {"If-Match": "*", "Idempotency-Key": name}
    client.put(path, json=body, headers=headers).raise_for_status()


async def _read_redis(url: str) -> dict[str, bytes]:
    redis = Redis.from_url(url)
    try:
        return await read_redis(redis)
    finally:
        await redis.aclose()


async def _count_sealed(platform: Platform) -> int:
    url = platform.environment_of("serve")["MAAS_DATABASE__SYSTEM_URL"]
    connection = await asyncpg.connect(**connection_arguments(url))
    try:
        return int(await connection.fetchval("SELECT count(*) FROM provider_credentials"))
    finally:
        await connection.close()


def _holds(text: bytes, key: str) -> bool:
    """Look for the key as it is, and for its middle as hex and base64 would write it."""
    raw = key.encode()
    packed = (base64.b64encode(raw[start:])[4:40] for start in range(3))
    return any(form in text for form in (raw, raw.hex().encode(), *packed))
