"""A server that speaks S3, as a process of its own on a free port; what it gets is on disk."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

BOOT_SECONDS = 60
BUCKET = "models"
KEY_ID, SECRET = "moto-key", "moto-secret-of-a-test"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """Where it is; any key will do."""

    endpoint: str
    process: "subprocess.Popen[bytes]"

    @property
    def options(self) -> dict[str, str]:
        """What a store is opened with."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
        }

    @property
    def environment(self) -> dict[str, str]:
        """What a platform is told, to keep its artifacts here."""
        return {
            "MAAS_STORAGE__URL": f"s3://{BUCKET}/artifacts",
            "MAAS_STORAGE__S3_ENDPOINT": self.endpoint,
            "MAAS_STORAGE__S3_REGION": "us-east-1",
            "MAAS_STORAGE__S3_ACCESS_KEY_ID": KEY_ID,
            "MAAS_STORAGE__S3_SECRET_ACCESS_KEY": SECRET,
        }


@contextmanager
def run_moto(folder: Path) -> Iterator[S3Server]:
    """Serve an empty bucket until the block ends; bodies lie in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _make_bucket(endpoint, process)
        yield S3Server(endpoint=endpoint, process=process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _make_bucket(endpoint: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=5):  # noqa: S310  our own server
                return
        except (URLError, OSError):
            time.sleep(0.05)
    message = f"the S3 server did not start: {process.poll()}"
    raise RuntimeError(message)
