"""A disk that an upload fills: it is said so, nothing half-done is left, and there is a way on."""

import base64
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.hostile import Trial
from tests.acceptance.platforms import Person, PlatformError, running
from tests.acceptance.verdict import Verdict, all_of

MIB = 1024 * 1024
SMALL_DISK_MIB, LARGE_DISK_MIB = 8, 64
SIZE = 2 * SMALL_DISK_MIB * MIB
QUOTA = SIZE + MIB
TUS = {"Tus-Resumable": "1.0.0"}
WAIT_SECONDS = 30.0


def fill_by_put(folder: Path) -> Verdict:
    """Upload more than a small disk holds, then less."""
    with small_disk(folder / "disk") as disk:
        settings = {"MAAS_STORAGE__URL": disk.as_uri()}
        with running(folder, settings=settings) as platform:
            person = platform.sign_in()
            with person.client() as client:
                version = _make_version(client, person)
                trial = Trial(client, version)
                put = {"method": "PUT", "url": f"{version}/files/large.bin"}
                trial.expect("a full disk", 507, **put, content=secrets.token_bytes(SIZE))
                left = _await(lambda: _bytes_on(disk), 0)
                small = client.put(f"{version}/files/small.bin", content=b"small")
                kept = client.get(f"{version}/files").json()["items"]
    names = [file["path"] for file in kept]
    return all_of(
        (not trial.wrong, "a full disk is said to be full" + trial.complaints()),
        (left == 0, f"{left} bytes of the file left behind"),
        (small.is_success, "the next small file fits"),
        (names == ["small.bin"], f"{len(names)} file listed"),
    )


def fill_by_tus(folder: Path) -> Verdict:
    """Send a file twice the disk's size: end it once, and once go on on a larger disk."""
    with small_disk(folder / "disk") as disk:
        settings = {"MAAS_STORAGE__URL": disk.as_uri(), "MAAS_STORAGE__PART_BYTES": str(MIB)}
        with running(folder, settings=settings) as platform:
            person, other = platform.sign_in(), platform.sign_in()
            with person.client() as client:
                _bind(client, other)
                version = _make_version(client, person)
                line = Line(client=client, trial=Trial(client, version), content=_random())
                ended = line.begin("ended.bin")
                offset = line.fill(ended)
                stored, held = _await(lambda: _bytes_on(disk), offset), line.quota("held")
                client.delete(ended, headers=TUS).raise_for_status()
                left = _await(lambda: _bytes_on(disk), 0)
                freed = _await(lambda: line.quota("held"), 0)
                small = client.put(f"{version}/files/small.bin", content=b"small")
                going = line.begin("going.bin")
                line.fill(going)
                _grow(disk)
                is_whole = line.go_on(going, f"{version}/files/going.bin")
                free, used = _await(lambda: line.quota("held"), 0), line.quota("used")
    return all_of(
        (not line.trial.wrong, "a full disk is said to be full" + line.trial.complaints()),
        (0 < offset == stored, f"{stored} bytes on it, of which {offset} count"),
        (held == SIZE, f"{held} bytes held meanwhile"),
        (left == freed == 0, f"ended: {left} bytes left, {freed} held"),
        (small.is_success, "a small file fits"),
        (is_whole, "with room it goes on to its end"),
        (free == 0 and used == SIZE + len(b"small"), f"{used} bytes charged, {free} held"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Somebody who sends the same bytes by tus."""

    client: httpx.Client
    trial: Trial
    content: bytes

    def begin(self, path: str) -> str:
        _, model, _, name = self.trial.version.rsplit("/", 3)
        said = {"model_id": model, "version": name, "path": path}
        pairs = (f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in said.items())
        headers = {"Upload-Length": str(SIZE), "Upload-Metadata": ",".join(pairs)}
        answer = self.client.post("/api/v1/uploads", headers=TUS | headers)
        return str(answer.raise_for_status().headers["Location"])

    def fill(self, upload: str) -> int:
        """Send until the disk is full, and again on the full one; tell how many bytes count."""
        for _ in range(2):
            self.trial.expect("a full disk", 507, **self._rest_of(upload))
        return self._offset(upload)

    def go_on(self, upload: str, file: str) -> bool:
        """Send what is missing, and tell whether the file is there then as it was sent."""
        self.client.request(**self._rest_of(upload)).raise_for_status()
        # Two requests brought it, so it may have to be read again before it is a file.
        _await(lambda: self.client.head(file).status_code, httpx.codes.OK)
        return self.client.get(file).content == self.content

    def quota(self, figure: str) -> int:
        sheet = self.client.get("/api/v1/users/quota").raise_for_status().json()
        (told,) = (each[figure] for each in sheet["quotas"] if each["limit"] == QUOTA)
        return int(told)

    def _rest_of(self, upload: str) -> dict[str, Any]:
        offset = self._offset(upload)
        said = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return {
            "method": "PATCH",
            "url": upload,
            "headers": TUS | said,
            "content": self.content[offset:],
        }

    def _offset(self, upload: str) -> int:
        answer = self.client.head(upload, headers=TUS).raise_for_status()
        return int(answer.headers["Upload-Offset"])


def _bind(client: httpx.Client, other: Person) -> None:
    """Have the other one bind whoever sends to a quota, which shows what is held."""
    account = client.get("/api/v1/users/profile").raise_for_status().json()["id"]
    quota = {"meter": "storage", "period": "total", "limit": QUOTA}
    with other.client() as admin:
        admin.put(
            f"/api/v1/admin/users/{account}/quota",
            json={"quotas": [quota]},
            headers={"If-Match": "*"},
        ).raise_for_status()


def _make_version(client: httpx.Client, person: Person) -> str:
    new = {"name": person.name, "framework": "other"}
    model = client.post("/api/v1/models", json=new).raise_for_status().json()["id"]
    versions = f"/api/v1/models/{model}/versions"
    client.post(versions, json={"version": "1"}).raise_for_status()
    return f"{versions}/1"


def _random() -> bytes:
    return secrets.token_bytes(SIZE)


def _await(tell: Callable[[], int], wanted: int) -> int:
    """Tell what it is in the end: what a request leaves goes a moment after its answer."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (told := tell()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return told


def _bytes_on(disk: Path) -> int:
    # Files and folders go while it looks.
    total = 0
    for folder, _, names in os.walk(disk):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of a few megabytes.

    Raises:
        PlatformError: this needs root.
    """
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        message = "only root can mount a small disk to fill"
        raise PlatformError(message)
    folder.mkdir()
    options = f"size={SMALL_DISK_MIB}m,mode=755"
    subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run([umount, folder], check=True)


def _grow(disk: Path) -> None:
    options = f"remount,size={LARGE_DISK_MIB}m"
    subprocess.run(["mount", "-o", options, disk], check=True)
