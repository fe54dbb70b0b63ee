"""A platform is backed up under load and comes back from nothing; a gigabyte does so in time."""

import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from bench.trail_data import fill_platform
from tests.acceptance.platforms import Person, Platform, clean_environment, running
from tests.acceptance.verdict import Verdict, all_of

WRITERS: Final = 4
BEFORE_SECONDS, AFTER_SECONDS = 4.0, 2.0
SETTLE_SECONDS: Final = 90.0
SLOWEST_SECONDS: Final = 5.0
"""A writer that waits for a backup waits for all of it, or for a lock that is given up later."""

RESTORE_SECONDS: Final = 300.0
GIGABYTE: Final = 1024**3
EVENTS: Final = 700_000
KEPT_APART: Final = ("secrets.json", "audit-key.pem")
CONTENT: Final = secrets.token_bytes(3 * 1024 * 1024)


@dataclass(slots=True)
class Writing:
    """What writers were told, by when, and how long the slowest one waited."""

    acknowledged: list[tuple[float, str]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    slowest: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def write(self, person: Person, number: int) -> None:
        with person.client() as client:
            turn = 0
            while not self._is_over.is_set():
                turn += 1
                name = f"{person.name}/writer-{number}-{turn}"
                began = time.monotonic()
                answer = client.post("/api/v1/models", json={"name": name, "framework": "other"})
                now = time.monotonic()
                with self._lock:
                    self.slowest = max(self.slowest, now - began)
                    if answer.is_success:
                        self.acknowledged.append((now, name))
                    else:
                        self.refused.append(answer.status_code)

    @contextmanager
    def going_on(self, person: Person) -> Iterator[None]:
        writers = [
            threading.Thread(target=self.write, args=(person, number)) for number in range(WRITERS)
        ]
        for each in writers:
            each.start()
        try:
            yield
        finally:
            self._is_over.set()
            for each in writers:
                each.join(60)


def under_load(folder: Path) -> Verdict:
    """Back up while people write, go on, lose it all, and restore into an empty folder."""
    target, writing = folder / "backup", Writing()
    (folder / "first").mkdir()
    with running(folder / "first") as platform:
        person, password = _sign_in(platform)
        key, file = _make_key_and_file(person)
        with writing.going_on(person):
            time.sleep(BEFORE_SECONDS)
            began = time.monotonic()
            taken = maas("backup", str(target), "--json", data_dir=platform.data_dir)
            took = time.monotonic() - began
            time.sleep(AFTER_SECONDS)
        apart = {name: (platform.data_dir / name).read_bytes() for name in KEPT_APART}
    data = folder / "second" / "data"
    data.mkdir(parents=True)
    for name, content in apart.items():
        (data / name).write_bytes(content)
    restored = maas("restore", str(target), "--json", data_dir=data)
    if taken.returncode or restored.returncode:
        return Verdict(is_met=False, figure=(taken.stderr + restored.stderr)[-300:])
    with running(folder / "second") as platform:
        output = platform.output.read_text()
        verified = _verify(platform, target)
        found = _look(platform, person, password, key, file)
        proven = _prove(platform, folder)
        known = _names(platform, person, password)
    due = [name for at, name in writing.acknowledged if at < began]
    lost = [name for name in due if name not in known]
    return all_of(
        (not writing.refused, f"{len(writing.acknowledged)} writes while it ran for {took:.1f} s"),
        (writing.slowest < SLOWEST_SECONDS, f"the slowest {writing.slowest:.2f} s"),
        (not lost, f"{len(due)} written before it, {len(lost)} lost"),
        (json.loads(restored.stdout)["integrity"] == "ok", "chain ok at the backup's head"),
        (verified == 0, f"`maas audit verify --head` ended with {verified}"),
        ("password" not in output.lower(), "no second administrator"),
        *found,
        (proven == 0, f"a row's proof: {proven}"),
    )


def a_gigabyte(folder: Path) -> Verdict:
    """Fill a gigabyte of trail, back it up and restore it, against the clock."""
    target, data = folder / "backup", folder / "second" / "data"
    (folder / "first").mkdir()
    with running(folder / "first") as platform:
        fill_platform(platform.data_dir, events=EVENTS, progress=lambda _text: None)
        size = _size_of(platform.data_dir / "postgres" / "base")
        began = time.monotonic()
        taken = maas("backup", str(target), "--json", data_dir=platform.data_dir)
        backed_up = time.monotonic() - began
    began = time.monotonic()
    restored = maas("restore", str(target), "--json", data_dir=data)
    took = time.monotonic() - began
    if taken.returncode or restored.returncode:
        return Verdict(is_met=False, figure=(taken.stderr + restored.stderr)[-300:])
    rows = json.loads(restored.stdout)["trail_rows"]
    return all_of(
        (size >= GIGABYTE, f"{size / GIGABYTE:.2f} GiB backed up in {backed_up:.0f} s"),
        (took <= RESTORE_SECONDS, f"restored and verified in {took:.0f} s"),
        (rows >= EVENTS, f"{rows:,} rows of trail on the chain"),
    )


def maas(*arguments: str, data_dir: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "maas.cli", *arguments],
        env=clean_environment(MAAS_DATA_DIR=str(data_dir)),
        capture_output=True,
        text=True,
        check=False,
    )


def _sign_in(platform: Platform) -> tuple[Person, str]:
    """Sign in as somebody whose password is known later too."""
    name, password = f"person-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    subprocess.run(
        [
            *(sys.executable, "-m", "maas.cli", "admin", "create", "--username", name),
            *("--email", f"{name}@example.com", "--password-stdin"),
        ],
        input=password,
        env=clean_environment(MAAS_DATA_DIR=str(platform.data_dir)),
        capture_output=True,
        text=True,
        check=True,
    )
    return Person(url=platform.url, name=name, token=_login(platform, name, password)), password


def _login(platform: Platform, name: str, password: str) -> str:
    answer = httpx.post(
        f"{platform.url}/api/v1/auth/login",
        json={"username": name, "password": password},
        timeout=30,
        trust_env=False,
    )
    return str(answer.raise_for_status().json()["access_token"])


def _make_key_and_file(person: Person) -> tuple[str, str]:
    with person.client() as client:
        key = client.post("/api/v1/users/api-keys", json={"name": "kept", "scopes": ["*:*"]})
        new = {"name": f"{person.name}/weights", "framework": "other"}
        model = client.post("/api/v1/models", json=new).raise_for_status().json()["id"]
        versions = f"/api/v1/models/{model}/versions"
        client.post(versions, json={"version": "1"}).raise_for_status()
        file = f"{versions}/1/files/weights.bin"
        client.put(file, content=CONTENT).raise_for_status()
        return str(key.raise_for_status().json()["key"]), file


def _verify(platform: Platform, target: Path) -> int:
    """Verify against the head kept with the backup, once what waited has been flushed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    head = str(target / "audit-head.ndjson")
    while True:
        done = maas("audit", "verify", "--head", head, data_dir=platform.data_dir)
        if done.returncode == 0 or time.monotonic() > deadline:
            return done.returncode


def _look(
    platform: Platform, person: Person, password: str, key: str, file: str
) -> list[tuple[bool, str]]:
    with httpx.Client(base_url=platform.url, timeout=30, trust_env=False) as client:
        old = client.get("/api/v1/users/profile", headers=_bearer(person.token))
        token = _login(platform, person.name, password)
        called = client.get("/v1/models", headers=_bearer(key))
        content = client.get(file, headers=_bearer(token)).content
    return [
        (old.status_code == httpx.codes.UNAUTHORIZED, f"the session of then: {old.status_code}"),
        (called.is_success, f"a call by its API key: {called.status_code}"),
        (content == CONTENT, "the file is the same to the byte"),
    ]


def _names(platform: Platform, person: Person, password: str) -> set[str]:
    token, names = _login(platform, person.name, password), set[str]()
    parameters = {"limit": "100"}
    with httpx.Client(base_url=platform.url, timeout=30, trust_env=False) as client:
        while True:
            page = client.get("/api/v1/models", params=parameters, headers=_bearer(token))
            answer = page.raise_for_status().json()
            names |= {item["name"] for item in answer["items"]}
            if answer["next_cursor"] is None:
                return names
            parameters["cursor"] = answer["next_cursor"]


def _prove(platform: Platform, folder: Path) -> int:
    """Prove one event of before the backup, with the public key alone."""
    proof, public = folder / "proof.json", folder / "public.pem"
    fresh = platform.sign_in()
    with fresh.client() as client:
        params = {"action": "model.created", "order": "oldest"}
        found = client.get("/api/v1/audit/logs", params=params)
        event = found.raise_for_status().json()["items"][0]["id"]
    maas("audit", "key", "--out", str(public), data_dir=platform.data_dir)
    maas("audit", "prove", event, "--out", str(proof), data_dir=platform.data_dir)
    checked = ("--proof", str(proof), "--public-key", str(public))
    return maas("audit", "verify", *checked, data_dir=folder / "nowhere").returncode


def _bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
