"""llm-comply's offline suite for chats of OpenAI's form, as its command line runs it."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from tests.clients.deploying import Face
from tests.clients.loopback import run_module


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    passed: int
    failed: int
    skipped: int
    wrong: list[str]
    """What failed, and what was warned of."""

    @override
    def __str__(self) -> str:
        left_out = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} of {self.passed + self.failed}{left_out}"


def comply(face: Face, model: str) -> Score:
    """Run the suite against a deployment."""
    done = run_module(
        "llm_comply.cli",
        *("--format", "openai-chat", "--base-url", face.url, "--api-key", face.key),
        *("--model", model, "--json"),
        face=face,
    )
    told = _read(done)
    summary = told["summary"]
    wrong = [
        f"{each['id']}: {words}"
        for each in told["results"]
        for words in (*each.get("warnings", ()), *each.get("errors", ()))
        if each["status"] != "skipped"
    ]
    return Score(
        passed=summary["passed"], failed=summary["failed"], skipped=summary["skipped"], wrong=wrong
    )


def _read(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError as exc:
        message = f"llm-comply ended with {done.returncode}: {done.stdout}{done.stderr}"
        raise AssertionError(message) from exc
    return told
