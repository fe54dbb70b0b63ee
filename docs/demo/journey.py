"""From weights to a proven answer: what a team does with the platform on its first day.

It plays against a running `make up`, or runs a platform of its own for as long as it takes. It
pushes real weights, names them, deploys them, calls them as OpenAI's client does, and checks what
the audit trail says of it without the server. Ends with an error if anything is not as promised.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
from openai.types.chat import ChatCompletionMessageParam
from rich.table import Table

from docs.demo.scenery import (
    LOOK_EVERY_SECONDS,
    JourneyError,
    console,
    expect_success,
    gather_weights,
    good,
    maas,
    run,
    say,
    some_platform,
    title,
    told,
)
from maas.embedded.folders import default_data_dir
from maas.shared.infrastructure.clock import SystemClock

MEBIBYTE = 1024 * 1024
NANOS = 10**9
VISIBLE_WITHIN_SECONDS = 2.0
GIVE_UP_SECONDS = 30.0
SCOPES = ["model:read", "model:write", "inference:call"]
PRICE = {"currency": "USD", "input": "0.10", "output": "0.40"}
"""Of a million tokens each: what the team charges others for its own machine."""

EXAMPLES: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of Italy?"},
    {"role": "assistant", "content": "Rome."},
    {"role": "user", "content": "What is the capital of Spain?"},
    {"role": "assistant", "content": "Madrid."},
    {"role": "user", "content": "What is the capital of France?"},
]
PROMPT = "The sea is"


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
    folder: Path
    began: datetime = field(default_factory=SystemClock().now)
    name: str = field(default_factory=lambda: f"demo-{secrets.token_hex(3)}")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    key: str = ""
    refused: tuple[str, float] = ("", 0.0)
    traces: list[Trace] = field(default_factory=list)

    @property
    def model(self) -> str:
        return f"{self.name}/gemma-3:270m"

    @property
    def here(self) -> dict[str, str]:
        return {"MAAS_DATA_DIR": str(self.data_dir)}

    def play(self) -> None:
        title("1  Somebody to act as")
        self.become_administrator()
        self.get_a_password_wrong()
        self.sign_in()
        title("2  Weights")
        self.make_key()
        self.push()
        title("3  A deployment")
        self.deploy()
        title("4  Calls, by OpenAI's own client")
        self.ask()
        request_id = self.ask_streamed()
        title("5  The receipt")
        receipt = self.show_receipt(request_id)
        title("6  The proof")
        self.prove(receipt)
        self.show_trail()

    def become_administrator(self) -> None:
        say(f"An administrator: [bold]{self.name}[/].")
        run(
            *("admin", "create", "--username", self.name),
            *("--email", f"{self.name}@example.com", "--password-stdin"),
            environment=self.here,
            text_in=self.password + "\n",
        )

    def get_a_password_wrong(self) -> None:
        say("The password, mistyped. That must be refused, and remembered.")
        answer = self.api.post(
            "/api/v1/auth/login", json={"username": self.name, "password": "not-the-password"}
        )
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            raise JourneyError(f"a wrong password was answered with {answer.status_code}")
        told(f"401 {answer.json()['code']}")
        self.refused = answer.headers["X-Request-ID"], time.monotonic()

    def sign_in(self) -> None:
        say("Now the right one.")
        body = {"username": self.name, "password": self.password}
        answer = self.api.post("/api/v1/auth/login", json=body)
        answered = time.monotonic()
        expect_success(answer)
        self.api.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        good("Signed in.")
        request_id, refused_at = self.refused
        self.look_up("mistyped the password", request_id, since=refused_at)
        self.look_up("signed in", answer.headers["X-Request-ID"], since=answered)

    def make_key(self) -> None:
        say("A key for programs, which may do three things and no more.")
        body = {"name": "demo", "scopes": SCOPES}
        made = self.call("POST", "/api/v1/users/api-keys", json=body, step="made a key").json()
        self.key = made["key"]
        good(f"{self.key[:18]}... may {', '.join(SCOPES)}")

    def push(self) -> None:
        weights = gather_weights(self.folder / "gemma-3-270m")
        size = weights.stat().st_size / MEBIBYTE
        say(f"[bold]{weights.name}[/], {size:.0f} MiB of real weights: pushed, named `production`.")
        began = time.monotonic()
        command = [maas(), "model", "push", str(weights.parent)]
        done = subprocess.run(
            [*command, "--name", self.model, "--alias", "production"],
            env={
                **os.environ,
                "MAAS_API_URL": str(self.api.base_url),
                "MAAS_API_KEY": self.key,
                "XDG_STATE_HOME": str(self.folder / "state"),
            },
            check=False,
        )
        if done.returncode != 0:
            raise JourneyError("`maas model push` did not work")
        good(f"There in {time.monotonic() - began:.1f} s, checked by its SHA-256.")

    def deploy(self) -> None:
        found = self.call("GET", "/api/v1/models", params={"q": self.name}).json()["items"]
        say("A name to call, and what answers: whatever `production` points at, on this machine.")
        target = {"kind": "local", "model_id": found[0]["id"], "alias": "production"}
        body = {
            "name": f"{self.name}/gemma",
            "targets": [{**target, "price": PRICE, "first_byte_seconds": 120}],
        }
        made = self.call("POST", "/api/v1/deployments", json=body, step="deployed it").json()
        good(f"{made['name']}, for {PRICE['input']} and {PRICE['output']} USD a million tokens")

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.api.base_url}/v1".replace("//v1", "/v1"),
            api_key=self.key,
            max_retries=0,
            timeout=180,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )

    def ask(self) -> None:
        *_, question = EXAMPLES
        say(f"A chat: [italic]{question['content']}[/]")
        told("The weights are the base model's, not trained to chat: two examples go before.")
        began = time.monotonic()
        with self.client() as client:
            raw = client.chat.completions.with_raw_response.create(
                model=f"{self.name}/gemma",
                messages=EXAMPLES,
                temperature=0,
                max_tokens=12,
                stop=["<|im_end|>", "\n"],
            )
        answered, answer = time.monotonic(), raw.parse()
        text = (answer.choices[0].message.content or "").strip()
        if not text:
            raise JourneyError("Gemma said nothing")
        console.print(f"  [bold yellow]{text}[/]")
        told(f"{answered - began:.1f} s, in which the model was loaded.")
        self.look_up("called it", raw.headers["x-request-id"], since=answered)

    def ask_streamed(self) -> str:
        say(f"And streamed, to be gone on with: [italic]{PROMPT}[/]")
        began, first = time.monotonic(), 0.0
        with self.client() as client:
            raw = client.completions.with_raw_response.create(
                model=f"{self.name}/gemma",
                prompt=PROMPT,
                temperature=0,
                max_tokens=40,
                stop=["\n"],
                stream=True,
            )
            console.print(f"  {PROMPT}", end="")
            for chunk in raw.parse():
                text = chunk.choices[0].text if chunk.choices else None
                if text:
                    first = first or time.monotonic() - began
                    console.print(f"[bold yellow]{text}[/]", end="", soft_wrap=True)
        ended = time.monotonic()
        console.print()
        if not first:
            raise JourneyError("Gemma said nothing")
        told(f"First word after {first:.2f} s, the last after {ended - began:.1f} s.")
        request_id: str = raw.headers["x-request-id"]
        self.look_up("called it, streamed", request_id, since=ended)
        return request_id

    def show_receipt(self, request_id: str) -> dict[str, Any]:
        say("What the streamed call was, for whoever pays:")
        receipt: dict[str, Any] = self.wait_for(f"/api/v1/receipts/{request_id}").json()
        target, booking, price = receipt["target"], receipt["booking"], receipt["price"]
        table = Table(box=None, padding=(0, 1), show_header=False)
        cost = int(booking["cost_nanos"]) / NANOS
        for what, value in (
            ("deployment", receipt["deployment"]["name"]),
            ("decision", receipt["decision"]),
            ("version", f"{target['version']}, digest {target['digest'][:16]}..."),
            ("tokens", f"{booking['input_tokens']} in, {booking['output_tokens']} out"),
            ("price", f"{amount(price['input'])} in, {amount(price['output'])} out, a million"),
            ("cost", f"{cost:.9f} {booking['currency']}"),
            ("time", f"{receipt['first_byte_ms']} ms to the first byte"),
            ("in the log", f"row {receipt['seq']}"),
        ):
            table.add_row(what, f"[bold]{value}[/]")
        console.print(table)
        counts = (booking["input_tokens"], booking["output_tokens"])
        if min(counts) < 1 or booking["is_estimated"]:
            raise JourneyError(f"the receipt does not know what was used: {counts}")
        return receipt

    def prove(self, receipt: dict[str, Any]) -> None:
        say("Its place in the log, proven by the signature alone. This asks no server:")
        proof, key = self.folder / "proof.json", self.folder / "key.pem"
        proof.write_text(json.dumps(receipt["proof"]), encoding="utf-8")
        run("audit", "key", "--out", str(key), environment=self.here)
        self.verify("--proof", str(proof), "--public-key", str(key))
        say("And all that the tenant did since I began, exported and verified, offline as well:")
        export = self.folder / "trail.ndjson"
        since = (self.began - timedelta(seconds=5)).isoformat().replace("+00:00", "Z")
        with self.api.stream(
            "GET", "/api/v1/audit/logs/export", params={"format": "ndjson", "since": since}
        ) as answer:
            expect_success(answer)
            with export.open("wb") as file:
                for part in answer.iter_bytes():
                    file.write(part)
        self.verify("--export", str(export), "--public-key", str(key))

    def verify(self, *words: str) -> None:
        """Run `maas audit verify` where there is no platform, no database and no setting."""
        nowhere = {"MAAS_DATA_DIR": str(self.folder / "nowhere")}
        for line in run("audit", "verify", *words, environment=nowhere).strip().splitlines():
            good(line)

    def call(self, method: str, path: str, *, step: str = "", **request: Any) -> httpx.Response:
        answer = self.api.request(method, path, **request)
        answered = time.monotonic()
        expect_success(answer)
        if step:
            self.look_up(step, answer.headers["X-Request-ID"], since=answered)
        return answer

    def wait_for(self, path: str) -> httpx.Response:
        """Ask until it is there: what has just ended is in the log within seconds."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while True:
            answer = self.api.get(path)
            if answer.status_code != httpx.codes.NOT_FOUND or time.monotonic() > deadline:
                expect_success(answer)
                return answer
            time.sleep(LOOK_EVERY_SECONDS)

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
        say("What I did, as the log has it:")
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for heading in ("seq", "I", "action", "outcome", "row hash", "after"):
            table.add_column(heading, justify="right" if heading == "seq" else "left", no_wrap=True)
        for trace in self.traces:
            table.add_row(
                str(trace.seq),
                trace.step,
                trace.action,
                f"[{'green' if trace.outcome == 'success' else 'yellow'}]{trace.outcome}[/]",
                trace.row_hash[:10],
                f"{trace.seconds:.2f} s",
            )
        console.print(table)
        slowest = max(trace.seconds for trace in self.traces)
        note = f"Slowest row: {slowest:.2f} s (promised: {VISIBLE_WITHIN_SECONDS:.0f} s)."
        console.print(f"\nOne row each, none missing, none twice. {note}", soft_wrap=True)


def amount(decimal: str) -> str:
    return f"{float(decimal):.2f}"


def play(data_dir: Path, folder: Path, url: str | None) -> None:
    with (
        some_platform(data_dir, folder, url) as (there, data),
        # Proxies of the environment are for the outside, not for this machine.
        httpx.Client(base_url=there, timeout=60, trust_env=False) as api,
    ):
        console.print(f"A platform is up at [bold]{there}[/].")
        Journey(api=api, data_dir=data, folder=folder).play()


def main() -> int:
    parser = argparse.ArgumentParser(description="From weights to a proven answer.")
    parser.add_argument("--url", help="where the API is (found by itself for `make up`)")
    parser.add_argument(
        "--data-dir", type=Path, help="the data folder of `maas up`, if not the usual one"
    )
    arguments = parser.parse_args()
    chosen = arguments.data_dir or os.environ.get("MAAS_DATA_DIR") or default_data_dir()
    folder, began = Path(tempfile.mkdtemp(prefix="maas-demo-")), time.monotonic()
    # Root's servers run as `nobody`, who has to get to their data.
    folder.chmod(0o711)
    try:
        play(Path(chosen).expanduser().absolute(), folder, arguments.url)
    except JourneyError as exc:
        console.print(f"\n[bold red]Stopped:[/] {exc}", soft_wrap=True)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"\n[bold green]All as promised[/], in {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
