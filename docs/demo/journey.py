"""The first journey, played against a running platform: `make up` in one terminal, this in another.

It makes a throw-away administrator, registers a model with real weights, takes them back byte for
byte, and shows what the audit trail knows of each step and how soon it knew it. Ends with an error
if anything is not as promised.
"""

import argparse
import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from maas.embedded.errors import EmbeddedError
from maas.embedded.folders import default_data_dir, locate_data_folder
from maas.embedded.lock import find_holder

MEBIBYTE = 1024 * 1024
VISIBLE_WITHIN_SECONDS = 2.0
GIVE_UP_SECONDS = 15.0
LOOK_EVERY_SECONDS = 0.1

console = Console(highlight=False)


class JourneyError(Exception):
    """Something is not as promised, or not there; the message is for the person who watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What the trail says of one step."""

    step: str
    action: str
    outcome: str
    seq: int
    row_hash: str
    seconds: float


@dataclass(slots=True, kw_only=True)
class Journey:
    api: httpx.Client
    data_dir: Path
    name: str = field(default_factory=lambda: f"demo-{secrets.token_hex(3)}")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    refused: tuple[str, float] = ("", 0.0)
    traces: list[Trace] = field(default_factory=list)

    def play(self) -> None:
        weights = find_weights()
        self.become_administrator()
        self.get_a_password_wrong()
        self.sign_in()
        model = self.register_model()
        version = self.make_version(model)
        digest = self.upload(version, weights)
        self.download(version, weights, digest)
        self.show_trail()

    def become_administrator(self) -> None:
        say(f"I need somebody to act as, so I make an administrator, [bold]{self.name}[/].")
        command = [
            *(str(Path(sys.executable).with_name("maas")), "admin", "create"),
            *("--username", self.name),
            *("--email", f"{self.name}@example.com", "--password-stdin"),
        ]
        done = subprocess.run(
            command,
            input=self.password + "\n",
            env=os.environ | {"MAAS_DATA_DIR": str(self.data_dir)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise JourneyError(f"`maas admin create` did not work:\n{done.stderr or done.stdout}")

    def get_a_password_wrong(self) -> None:
        say("First I mistype the password, as people do. That must be refused, and remembered.")
        answer = self.api.post(
            "/api/v1/auth/login", json={"username": self.name, "password": "not-the-password"}
        )
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            raise JourneyError(f"a wrong password was answered with {answer.status_code}")
        told(f"401, {answer.json()['code']}: {answer.json()['detail']}")
        self.refused = answer.headers["X-Request-ID"], time.monotonic()

    def sign_in(self) -> None:
        say("Now the right one.")
        answer = self.call(
            "POST",
            "/api/v1/auth/login",
            json={"username": self.name, "password": self.password},
        )
        answered = time.monotonic()
        token = answer.json()["access_token"]
        self.api.headers["Authorization"] = f"Bearer {token}"
        told(f"Signed in; the token is good for {answer.json()['expires_in'] // 60} minutes.")
        request_id, refused_at = self.refused
        self.look_up("mistyped the password", request_id, since=refused_at)
        self.look_up("signed in", answer.headers["X-Request-ID"], since=answered)

    def register_model(self) -> str:
        say("I register a model: embeddings that run anywhere.")
        answer = self.call(
            "POST",
            "/api/v1/models",
            json={
                "name": f"{self.name}/wordllama:256",
                "framework": "safetensors",
                "task": "embeddings",
                "licence": "MIT",
                "description": "Small static embeddings, cut to 256 dimensions.",
            },
            step="registered the model",
        )
        model = answer.json()
        told(f"{model['name']}, id {model['id']}")
        return f"/api/v1/models/{model['id']}"

    def make_version(self, model: str) -> str:
        say("It gets a version, 1.0.0.")
        answer = self.call(
            "POST", f"{model}/versions", json={"version": "1.0.0"}, step="made version 1.0.0"
        )
        told(f"It is {answer.json()['status']}: nothing is in it yet.")
        return f"{model}/versions/1.0.0"

    def upload(self, version: str, weights: Path) -> str:
        size = weights.stat().st_size
        say(f"The weights: [bold]{weights.name}[/], {size / MEBIBYTE:.1f} MiB, real ones.")
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        began = time.monotonic()
        answer = self.call(
            "PUT",
            f"{version}/files/{weights.name}",
            content=chunks_of(weights),
            headers={"Content-Length": str(size), "X-Checksum-SHA256": digest},
            step="uploaded the weights",
        )
        seconds = time.monotonic() - began
        if answer.json()["sha256"] != digest:
            raise JourneyError("the platform computed another SHA-256 than I did")
        told(f"Up in {seconds:.2f} s; we agree on its SHA-256, {digest[:16]}...")
        return digest

    def download(self, version: str, weights: Path, digest: str) -> None:
        say("And back again, compared byte for byte while it comes.")
        began = time.monotonic()
        seen, count = hashlib.sha256(), 0
        with (
            weights.open("rb") as original,
            self.api.stream("GET", f"{version}/files/{weights.name}") as answer,
        ):
            expect_success(answer)
            for chunk in answer.iter_bytes(MEBIBYTE):
                if original.read(len(chunk)) != chunk:
                    raise JourneyError(f"a byte differs, {count} bytes or more into the file")
                seen.update(chunk)
                count += len(chunk)
            if original.read(1):
                raise JourneyError("the download ended too early")
        if seen.hexdigest() != digest:
            raise JourneyError("the downloaded bytes have another SHA-256")
        told(f"Every byte is the same, in {time.monotonic() - began:.2f} s.")
        self.look_up("downloaded them", answer.headers["X-Request-ID"], since=time.monotonic())

    def call(self, method: str, path: str, *, step: str = "", **request: Any) -> httpx.Response:
        answer = self.api.request(method, path, **request)
        answered = time.monotonic()
        expect_success(answer)
        if step:
            self.look_up(step, answer.headers["X-Request-ID"], since=answered)
        return answer

    def look_up(self, step: str, request_id: str, *, since: float) -> None:
        """Wait until the trail shows the event of a request, and note how long that took."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            answer = self.api.get("/api/v1/audit/logs", params={"request_id": request_id})
            expect_success(answer)
            events = answer.json()["items"]
            if len(events) > 1:
                raise JourneyError(f"{len(events)} audit rows for one request: {step}")
            if events:
                (event,) = events
                self.traces.append(
                    Trace(
                        step=step,
                        action=event["action"],
                        outcome=event["outcome"],
                        seq=event["seq"],
                        row_hash=event["row_hash"],
                        seconds=time.monotonic() - since,
                    )
                )
                return
            time.sleep(LOOK_EVERY_SECONDS)
        raise JourneyError(f"no audit row for {request_id} after {GIVE_UP_SECONDS:.0f} s: {step}")

    def show_trail(self) -> None:
        say("What the audit log knows of all this, read back through the API:")
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for title in ("seq", "I", "action", "outcome", "row hash", "seen"):
            table.add_column(title, justify="right" if title == "seq" else "left", no_wrap=True)
        for trace in self.traces:
            table.add_row(
                str(trace.seq),
                trace.step,
                trace.action,
                f"[{'green' if trace.outcome == 'success' else 'yellow'}]{trace.outcome}[/]",
                trace.row_hash[:10],
                f"{trace.seconds:.2f} s later",
            )
        console.print(table)
        slowest = max(trace.seconds for trace in self.traces)
        console.print(
            f"\nOne row each, none missing, none twice. Slowest audit row: {slowest:.2f} s after "
            f"the answer (promised: {VISIBLE_WITHIN_SECONDS:.0f} s).",
            soft_wrap=True,
        )
        if slowest > VISIBLE_WITHIN_SECONDS:
            raise JourneyError("a row came later than promised")


def say(text: str) -> None:
    console.print(f"\n[cyan]>[/] {text}", soft_wrap=True)


def told(text: str) -> None:
    console.print(f"  [dim]{text}[/]", soft_wrap=True)


def expect_success(answer: httpx.Response) -> None:
    if not answer.is_success:
        answer.read()
        raise JourneyError(
            f"{answer.request.method} {answer.request.url.path} was answered with "
            f"{answer.status_code}:\n{answer.text}"
        )


def chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(MEBIBYTE):
            yield chunk


def find_weights() -> Path:
    """Find the safetensors file that the `wordllama` package carries."""
    spec = find_spec("wordllama")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in sorted(Path(folder).rglob("*.safetensors")):
            return path
    raise JourneyError("the package `wordllama`, which carries the weights, is not installed")


def find_url(data_dir: Path) -> str:
    """Ask the data folder where its platform listens, else take the usual address."""
    try:
        holder = find_holder(locate_data_folder(data_dir).lock_file)
    except (EmbeddedError, OSError):
        holder = None
    if holder is not None and holder.url:
        return holder.url
    return f"http://127.0.0.1:{os.environ.get('MAAS_PORT', '8000')}"


def expect_ready(api: httpx.Client) -> None:
    try:
        answer = api.get("/health/ready")
    except httpx.TransportError:
        raise JourneyError(
            f"Nothing is running at {api.base_url}.\n"
            "Start it with `make up` in another terminal, wait for the green panel, and try again."
        ) from None
    if not answer.is_success:
        raise JourneyError(f"The platform at {api.base_url} is not ready yet:\n{answer.text}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Play the first journey on a running platform.")
    parser.add_argument("--url", help="where the API is (found by itself for `make up`)")
    parser.add_argument(
        "--data-dir", type=Path, help="the data folder of `maas up`, if not the usual one"
    )
    arguments = parser.parse_args()
    chosen = arguments.data_dir or os.environ.get("MAAS_DATA_DIR") or default_data_dir()
    data_dir = Path(chosen).expanduser().absolute()
    url = arguments.url or find_url(data_dir)
    # Proxies of the environment are for the outside, not for this machine.
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as api:
        try:
            expect_ready(api)
            console.print(f"A platform is up at [bold]{url}[/]. This is what one can do with it.")
            Journey(api=api, data_dir=data_dir).play()
        except JourneyError as exc:
            Console(stderr=True).print(
                f"\n[bold red]Stopped:[/] {exc}", highlight=False, soft_wrap=True
            )
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
