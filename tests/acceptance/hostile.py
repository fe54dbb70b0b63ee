"""Input that nobody should send: a clear problem each time, never a 500, nothing half-done left."""

import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.acceptance.platforms import Platform, running
from tests.acceptance.verdict import Verdict, all_of

SLOWEST_SECONDS = 3.0
MARKER = "do-not-echo-me"
JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Trial:
    """One signed-in client, and what went wrong so far."""

    client: httpx.Client
    version: str = ""
    wrong: list[str] = field(default_factory=list)
    count: int = 0

    def expect(self, what: str, *statuses: int, **request: object) -> None:
        """Send something hostile and judge the answer."""
        self.count += 1
        began = time.monotonic()
        try:
            answer = self.client.request(**request)  # type: ignore[arg-type]  # one mapping
        except httpx.HTTPError as exc:
            self.wrong.append(f"{what}: no answer ({type(exc).__name__})")
            return
        if problem := _fault_in(answer, statuses, time.monotonic() - began):
            self.wrong.append(f"{what}: {problem}")

    def complaints(self) -> str:
        """Tell what went wrong, behind what should have been."""
        return f" (but {'; '.join(self.wrong)})" if self.wrong else ""


def _fault_in(answer: httpx.Response, statuses: tuple[int, ...], seconds: float) -> str | None:
    if answer.status_code not in statuses:
        return f"{answer.status_code}, not {'/'.join(map(str, statuses))}"
    if answer.headers.get("content-type") != "application/problem+json":
        return f"not a problem document ({answer.headers.get('content-type')})"
    body = answer.json()
    missing = {"type", "title", "status", "detail", "instance", "code", "request_id"} - body.keys()
    if missing:
        return f"the problem lacks {', '.join(sorted(missing))}"
    if MARKER in answer.text.replace(body["instance"], ""):
        return "it echoes what was sent"
    return f"took {seconds:.1f} s" if seconds > SLOWEST_SECONDS else None


def refuse(folder: Path) -> Verdict:
    with running(folder) as platform:
        person = platform.sign_in()
        with person.client() as client:
            model = client.post("/api/v1/models", json={"name": person.name, "framework": "other"})
            models = f"/api/v1/models/{model.raise_for_status().json()['id']}"
            client.post(f"{models}/versions", json={"version": "1"}).raise_for_status()
            trial = Trial(client, f"{models}/versions/1")
            before = _stored(platform)
            _credentials(trial)
            _bodies(trial)
            _queries(trial)
            _uploads(trial)
            _hang_up(trial)
            time.sleep(1)
            left = len(_stored(platform) - before)
            kept = len(client.get(f"{trial.version}/files").json()["items"])
            registered = len(client.get("/api/v1/models").json()["items"])
            is_ready = client.get("/health/ready").is_success
    return all_of(
        (not trial.wrong, f"{trial.count} inputs refused clearly" + trial.complaints()),
        (kept == 0, f"{kept} half files listed"),
        (left == 0, f"{left} half files stored"),
        (registered == 1, f"{registered - 1} models made by mistake"),
        (is_ready, "ready afterwards"),
    )


def _stored(platform: Platform) -> set[Path]:
    """List the files below the data folder that only uploads make."""
    servers = ("postgres", "valkey", "logs", "run", "binaries")
    skipped = tuple(platform.data_dir / name for name in servers)
    return {
        path
        for path in platform.data_dir.rglob("*")
        if path.is_file() and not path.is_relative_to(skipped[0])
        if not any(path.is_relative_to(each) for each in skipped)
        if not any(part.startswith("metrics-") for part in path.parts)
    }


def _credentials(trial: Trial) -> None:
    login = {"method": "POST", "url": "/api/v1/auth/login"}
    trial.expect("wrong password", 401, **login, json={"username": "ada", "password": MARKER})
    profile = {"method": "GET", "url": "/api/v1/users/profile"}
    right = trial.client.headers["Authorization"]
    for what, value in {
        "a wrong token": f"Bearer {MARKER}",
        "a forged token": right[:-6] + ("AAAAAA" if not right.endswith("AAAAAA") else "BBBBBB"),
        "an unsigned token": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
        "a token of 20 kB": "Bearer " + "a" * 20_000,
        "another scheme": "Basic YWRhOmFkYQ==",
    }.items():
        trial.expect(what, 401, 431, **profile, headers={"Authorization": value})


def _bodies(trial: Trial) -> None:
    create = {"method": "POST", "url": "/api/v1/models", "headers": JSON}
    digits = "9" * 5_000
    for what, body in {
        "a NUL": f'{{"name": "{MARKER}\\u0000", "framework": "other"}}',
        "a lone surrogate": f'{{"name": "{MARKER}\\ud800", "framework": "other"}}',
        "a 5,000-digit number": f'{{"name": {digits}, "framework": "other"}}',
        "100,000 nested arrays": "[" * 100_000,
        "closed nested arrays": "[" * 100_000 + "]" * 100_000,
        "no JSON": f"{{{MARKER}",
        "nothing": "",
        "a list": "[]",
        "NaN": '{"name": NaN, "framework": "other"}',
        "a name given twice": '{"name": "a", "name": "b", "framework": "other"}',
        "an unknown field": f'{{"name": "a", "framework": "other", "x": "{MARKER}"}}',
        "a wrong type": '{"name": ["a"], "framework": "other"}',
        "an unknown framework": f'{{"name": "a", "framework": "{MARKER}"}}',
    }.items():
        trial.expect(what, 400, 413, 422, **create, content=body.encode())
    trial.expect("no UTF-8", 400, 422, **create, content=b'{"name": "\xff\xfe"}')
    trial.expect("2 MiB", 413, **create, content=b" " * (2 * 1024 * 1024))
    plain = {"method": "POST", "url": "/api/v1/models", "headers": {"Content-Type": "text/plain"}}
    trial.expect("plain text", 415, **plain, content=b"{}")
    packed = {
        "method": "POST",
        "url": "/api/v1/models",
        "headers": JSON | {"Content-Encoding": "gzip"},
    }
    trial.expect("a packed body", 415, **packed, content=b"{}")


def _queries(trial: Trial) -> None:
    for what, query in {
        "a page of -1": "limit=-1",
        "a page of 0": "limit=0",
        "a page of 10^5000": f"limit={'9' * 5_000}",
        "a page of x": "limit=x",
        "a made-up cursor": f"cursor={MARKER}",
        "a NUL in a query": "q=%00",
        "broken UTF-8 in a query": "q=%ff%fe",
    }.items():
        trial.expect(what, 400, 414, 422, method="GET", url=f"/api/v1/models?{query}")
    logs = "/api/v1/audit/logs"
    trial.expect(
        "a date of year 99999", 422, method="GET", url=f"{logs}?since=99999-01-01T00:00:00Z"
    )
    trial.expect("an actor that is no id", 422, method="GET", url=f"{logs}?actor_id={MARKER}")
    trial.expect("a NUL in a path", 404, 422, method="GET", url="/api/v1/models/%00")
    trial.expect(
        "a path outwards", 404, 422, method="GET", url=f"{trial.version}/files/..%2f..%2fetc"
    )
    trial.expect("an unknown route", 404, method="GET", url="/api/v1/nothing")
    trial.expect("an unknown method", 405, method="PATCH", url="/api/v1/models")
    trial.expect(
        "nobody's model",
        404,
        method="GET",
        url=f"/api/v1/models/{'0' * 8}-0000-7000-8000-{'0' * 12}",
    )


def _uploads(trial: Trial) -> None:
    file = {"method": "PUT", "url": f"{trial.version}/files/weights.bin"}
    bytes_ = secrets.token_bytes(3 * 1024 * 1024)
    for what, headers in {
        "a wrong file hash": {"X-Checksum-SHA256": "0" * 64},
        "a hash that is none": {"X-Checksum-SHA256": MARKER},
        "a wrong digest": {"Content-Digest": f"sha-256=:{'A' * 43}=:"},
    }.items():
        trial.expect(what, 400, 422, **file, headers=headers, content=bytes_)
    trial.expect("a packed file", 415, **file, headers={"Content-Encoding": "gzip"}, content=bytes_)
    pickle = {"method": "PUT", "url": f"{trial.version}/files/model.pkl"}
    trial.expect(
        "a pickle", 415, 422, **pickle, content=b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00."
    )


def _hang_up(trial: Trial) -> None:
    """Announce a megabyte, send a little of it, and go away: with a reset, and with a farewell."""
    url = urlsplit(str(trial.client.base_url))
    head = (
        f"PUT {trial.version}/files/cut.bin HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Authorization: {trial.client.headers['Authorization']}\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 1048576\r\n\r\n"
    )
    for is_polite in (True, False):
        trial.count += 1
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=5) as link:
            link.sendall(head.encode() + b"x" * 100_000)
            time.sleep(0.2)
            if is_polite:
                link.shutdown(socket.SHUT_WR)
                with suppress(OSError):
                    answer = link.recv(65536)
                    if answer.startswith((b"HTTP/1.1 5", b"HTTP/1.1 2")):
                        trial.wrong.append(f"a file cut off: {answer[:20]!r}")
