"""The upstream as a process of its own, and commands to it from a test that is not asynchronous."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.upstream.scripts import Script

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningUpstream:
    """`tls` has a port for each variant of `certificates`, where a folder was given."""

    port: int
    process: "subprocess.Popen[bytes]"
    tls: Mapping[str, int] = field(default_factory=dict)
    ca_file: Path | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, name: str, script: Script) -> None:
        content = script.model_dump_json()
        httpx.put(f"{self.url}/_script/{name}", content=content, trust_env=False).raise_for_status()

    def put(self, what: str, value: Mapping[str, object]) -> None:
        """Set the `keys` or `models` there are."""
        httpx.put(f"{self.url}/_{what}", json=value, trust_env=False).raise_for_status()

    def ledger(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/_ledger", trust_env=False).raise_for_status()
        told: dict[str, Any] = answer.json()
        return told


@contextmanager
def running_upstream(
    *words: str, keys: tuple[str, ...] = (), tls_folder: Path | None = None
) -> Iterator[RunningUpstream]:
    """Run it until the block ends; `words` are more of its command line."""
    command = [sys.executable, "-m", "tests.upstream", *words]
    for key in keys:
        command += ["--key", key]
    if tls_folder is not None:
        command += ["--tls-folder", str(tls_folder)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline() or b"null")
        if told is None:
            message = f"the upstream did not start: {process.wait(STOP_SECONDS)}"
            raise RuntimeError(message)
        yield RunningUpstream(
            port=told["port"],
            process=process,
            tls=told.get("tls", {}),
            ca_file=Path(told["ca_file"]) if "ca_file" in told else None,
        )
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
