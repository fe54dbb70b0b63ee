"""Clients in processes of their own, which reach nothing but this machine."""

import os
import subprocess
import sys
from typing import Final

import pytest_socket

from tests.clients.deploying import Face

HERE: Final = ["127.0.0.1", "::1", "localhost"]
SECONDS: Final = 120
QUIET: Final = {
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
}
"""What keeps these clients from calling home."""


def stay_here() -> None:
    """Let this process connect to nothing else; what tries is an error."""
    pytest_socket.socket_allow_hosts(HERE)


def run_module(module: str, *words: str, face: Face) -> "subprocess.CompletedProcess[str]":
    """Run a module with the client's address, key and the names it can call."""
    environment = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env={**environment, **QUIET, "OPENAI_API_KEY": face.key, "OPENAI_BASE_URL": face.url},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
