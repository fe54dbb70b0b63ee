"""LiteLLM's proxy beside ours, from an environment of its own.

It is told to do as little as it can: one worker as ours is one process, no database and so neither
budgets nor a ledger, one key that it compares, nothing fetched from elsewhere, no access log, and
the faster parser, which it would take only where somebody installed it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.environments import install
from bench.platform import free_port, wait_until_answering

VERSION: Final = "1.106.2"
PACKAGES: Final = (f"litellm[proxy]=={VERSION}", "httptools")
NAME: Final = "litellm"
MASTER_KEY: Final = "sk-bench-litellm"
READY_SECONDS: Final = 120
STOP_SECONDS: Final = 15

_ENVIRONMENT: Final = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "DO_NOT_TRACK": "true",
    **{
        f"LITELLM_LOCAL_{what}": "True"
        for what in (
            "MODEL_COST_MAP",
            "ANTHROPIC_BETA_HEADERS",
            "AUTOROUTER_PRESETS",
            "BLOG_POSTS",
            "POLICY_TEMPLATES",
        )
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteLlmProxy:
    """A proxy that answers under `model`, for whoever has the master key."""

    port: int
    process: psutil.Process


@contextmanager
def run_litellm(folder: Path, *, upstream: str, key: str, model: str) -> Iterator[LiteLlmProxy]:
    """Run the proxy before an OpenAI API until the block ends; `model` is named the same there."""
    environment = install(f"{NAME}-{VERSION}", PACKAGES)
    port = free_port()
    # JSON is YAML too.
    config = folder / "litellm.yaml"
    config.write_text(json.dumps(_config(upstream=upstream, key=key, model=model)))
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(environment / "bin" / "litellm"), "--config", str(config)),
                *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
            ],
            env={
                "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(folder),
                **_ENVIRONMENT,
            },
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/health/liveliness"
        wait_until_answering(url, process, seconds=READY_SECONDS)
        yield LiteLlmProxy(port=port, process=psutil.Process(process.pid))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS)


def _config(*, upstream: str, key: str, model: str) -> dict[str, object]:
    parameters = {"model": f"openai/{model}", "api_base": f"{upstream}/v1", "api_key": key}
    return {
        "model_list": [{"model_name": model, "litellm_params": parameters}],
        "litellm_settings": {"telemetry": False, "set_verbose": False},
        "general_settings": {"master_key": MASTER_KEY},
    }
