"""What the time of an answer tells: a wrong password beside a name that nobody has."""

import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from bench.platform import RunningPlatform, environment

PAIRS = 500
SHARE_GOAL = 0.05
GAP_GOAL_MS = 3.0


@dataclass(frozen=True, slots=True)
class TellingRow:
    """Medians of a route, in milliseconds, for an account that is there and one that is not."""

    name: str
    known_ms: float
    unknown_ms: float

    @property
    def gap_ms(self) -> float:
        return abs(self.known_ms - self.unknown_ms)

    @property
    def is_met(self) -> bool:
        slower = max(self.known_ms, self.unknown_ms)
        return self.gap_ms <= GAP_GOAL_MS or self.gap_ms / slower <= SHARE_GOAL


def measure_telling(platform: RunningPlatform) -> list[TellingRow]:
    """Ask in pairs, in turns, over one connection; the platform must not throttle sign-ins."""
    name = f"bench-{secrets.token_hex(4)}"
    subprocess.run(
        [
            sys.executable, "-m", "maas.cli", "admin", "create", "--username", name,
            "--email", f"{name}@example.com", "--password-stdin",
        ],
        input=secrets.token_urlsafe(24).encode(), env=environment(platform.data_dir), check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with httpx.Client(base_url=f"{platform.url}/api/v1/auth") as client:
        return [
            _measure(
                client, "POST /auth/login", path="/login",
                body=lambda who: {"username": who, "password": "not the right one"},
                known=name, expected=401,
            ),
            _measure(
                client, "POST /auth/password/forgot", path="/password/forgot",
                body=lambda who: {"email": f"{who}@example.com"}, known=name, expected=202,
            ),
        ]  # fmt: skip


def _measure(
    client: httpx.Client,
    title: str,
    *,
    path: str,
    body: Callable[[str], dict[str, str]],
    known: str,
    expected: int,
) -> TellingRow:
    samples: dict[bool, list[float]] = {True: [], False: []}
    for number in range(PAIRS + 5):
        for is_known in (True, False) if number % 2 else (False, True):
            who = known if is_known else f"nobody-{secrets.token_hex(4)}"
            began = time.perf_counter()
            answer = client.post(path, json=body(who))
            took = (time.perf_counter() - began) * 1000
            if answer.status_code != expected:
                message = f"{path} answered {answer.status_code}"
                raise RuntimeError(message)
            # The first few warm the connection and the caches up.
            if number >= 5:  # noqa: PLR2004  as many as that takes
                samples[is_known].append(took)
    return TellingRow(title, statistics.median(samples[True]), statistics.median(samples[False]))
