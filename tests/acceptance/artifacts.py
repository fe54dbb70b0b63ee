"""Large files: flat memory, kept once, killed half-way and gone on with, freed when unused."""

import io
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from onnx import TensorProto, helper
from requests.exceptions import RequestException
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.uploader.uploader import Uploader

from tests.acceptance.hostile import Trial
from tests.acceptance.platforms import Person, Platform, clean_environment, running
from tests.acceptance.verdict import Finding, Verdict, all_of
from tests.factories.weights import make_gguf, make_zip
from tests.moto_server import run_moto

MIB = 1024 * 1024
SIZE_MIB = 5 * 1024
GROWTH_MIB = 64
TUS_MIB, TUS_CHUNK_MIB, KILLS = 512, 64, 4
FILES, COLLECTOR_KILLS = 200, 12
WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version to put files into, and who does it."""

    person: Person
    model_id: str

    @property
    def url(self) -> str:
        return f"{self.person.url}/api/v1/models/{self.model_id}/versions/1/files"

    def send(self, source: Path, path: str) -> None:
        self._curl("-T", str(source), path=path)

    def fetch(self, path: str, target: Path) -> None:
        self._curl("-o", str(target), path=path)

    def _curl(self, *options: str, path: str) -> None:
        subprocess.run(
            [
                *("curl", "--fail", "--silent", "--show-error"),
                *("-H", f"Authorization: Bearer {self.person.token}", *options),
                f"{self.url}/{path}",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def five_gib_on_disk(folder: Path) -> Verdict:
    with running(folder) as platform:
        stored = platform.data_dir / "artifacts"
        return all_of(*_there_and_back(platform, folder, lambda: _size_of(stored)))


def five_gib_on_s3(folder: Path) -> Verdict:
    """Keep the file on a server that speaks S3, whose own disk is looked at."""
    with (
        run_moto(folder / "moto") as server,
        running(folder, settings=server.environment) as platform,
    ):
        return all_of(*_there_and_back(platform, folder, None))


def _there_and_back(
    platform: Platform, folder: Path, stored_bytes: Callable[[], int] | None
) -> list[Finding]:
    version, source, back = _make_version(platform), folder / "source", folder / "back"
    _fill(source, SIZE_MIB)
    # A small one first: what a first request loads is no growth.
    small = folder / "small"
    _fill(small, 1)
    version.send(small, "small")
    with _growth_of(platform) as growth:
        version.send(source, "large")
        up = growth()
        version.fetch("large", back)
        down = growth()
    is_same = subprocess.run(["cmp", source, back], check=False).returncode == 0
    back.unlink()
    findings = [
        (is_same, f"{SIZE_MIB} MiB came back as they went"),
        (up <= GROWTH_MIB, f"up +{up:.0f} MiB of memory"),
        (down <= GROWTH_MIB, f"down +{down:.0f} MiB"),
    ]
    if stored_bytes is not None:
        once = stored_bytes()
        version.send(source, "again")
        more = stored_bytes() - once
        findings.append((more == 0, f"sent twice, it takes {more} bytes more"))
    return findings


def refused_files(folder: Path) -> Verdict:
    """Send files that will not do; a full disk is filled in a check of its own."""
    with running(folder) as platform:
        version = _make_version(platform)
        with version.person.client() as client:
            trial = Trial(client, f"/api/v1/models/{version.model_id}/versions/1")
            for what, name, content, headers in (
                ("a wrong hash", "a", b"bytes", {"X-Checksum-SHA256": "0" * 64}),
                ("a traversal path", "..%2f..%2fetc%2fpasswd", b"bytes", {}),
                ("a lying header", "a.gguf", make_gguf()[:-1], {}),
                ("a header longer than its file", "a.safetensors", b"\xff" * 7 + b"\0{}", {}),
                ("a zip bomb", "a.zip", _zip_bomb(), {}),
                ("a pickle in a zip", "b.zip", make_zip({"w.bin": b"\x80\x04\x95"}), {}),
                ("weights outside of the folder", "a.onnx", _straying_model(), {}),
            ):
                put = {"method": "PUT", "url": f"{version.url}/{name}", "headers": headers}
                trial.expect(what, 404, 415, 422, **put, content=content)
            _send_short_body(trial, version)
            kept = client.get(version.url).raise_for_status().json()["items"]
        left = _objects(platform.data_dir / "artifacts")
    return all_of(
        (not trial.wrong, f"{trial.count} files refused clearly" + trial.complaints()),
        (not kept, f"{len(kept)} listed"),
        (not left, f"{len(left)} objects left behind"),
    )


def _zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(64 * MIB))
    return packed.getvalue()


def _straying_model() -> bytes:
    """Make an ONNX model whose weight is in a file that nobody should open."""
    weight = TensorProto(name="w", dims=[2], data_type=1, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../../etc/passwd")
    graph = helper.make_graph([], "g", [], [], initializer=[weight])
    return bytes(helper.make_model(graph).SerializeToString())


def _send_short_body(trial: Trial, version: Version) -> None:
    """Announce more than is sent; the answer, if there is one yet, is a refusal."""
    trial.count += 1
    url = urlsplit(version.url)
    head = (
        f"PUT {url.path}/short HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 1048576\r\n"
        f"Authorization: Bearer {version.person.token}\r\n\r\n"
    )
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=5) as link:
        link.sendall(head.encode() + b"x" * 100_000)
        link.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            answer = link.recv(65536)
            if answer and b" 422 " not in answer[:20]:
                trial.wrong.append(f"a short body: {answer[:20]!r}")


def killed_in_mid_upload(folder: Path) -> Verdict:
    """Kill the API while tuspy sends; it goes on where the durable bytes end."""
    with running(folder) as platform:
        version, source = _make_version(platform), folder / "source"
        _fill(source, TUS_MIB)
        uploader = _uploader(version, source)
        kills = 0
        kept: list[tuple[int, int]] = []
        while uploader.offset < TUS_MIB * MIB:
            victim = None
            if kills < KILLS and uploader.offset >= kills * TUS_MIB * MIB // (KILLS + 1):
                victim = threading.Timer(random.uniform(0.05, 0.3), platform.kill, ["serve"])  # noqa: S311  when to kill
                victim.start()
                kills += 1
            try:
                uploader.upload_chunk()  # type: ignore[no-untyped-call]  # tuspy has few types
            except (TusCommunicationError, RequestException, OSError):
                platform.wait_until_ready()
                uploader = _resumed(uploader, kept)
            if victim is not None:
                victim.join()
                platform.wait_until_ready()
                uploader = _resumed(uploader, kept)
        is_same = _arrives(version, source, folder / "back")
    return all_of(
        (kills == KILLS, f"{kills} kills"),
        (all(now >= before for before, now in kept), "no acknowledged byte lost"),
        (is_same, f"{TUS_MIB} MiB whole in the end"),
    )


def _resumed(uploader: Uploader, kept: list[tuple[int, int]]) -> Uploader:
    before = uploader.offset
    uploader.offset = uploader.get_offset()
    kept.append((before, uploader.offset))
    return uploader


def _uploader(version: Version, source: Path) -> Uploader:
    client = TusClient(
        f"{version.person.url}/api/v1/uploads",
        headers={"Authorization": f"Bearer {version.person.token}"},
    )
    uploader: Uploader = client.uploader(
        str(source),
        chunk_size=TUS_CHUNK_MIB * MIB,
        metadata={"model_id": version.model_id, "version": "1", "path": "large"},
    )
    uploader.set_url(uploader.create_url())
    return uploader


def _arrives(version: Version, source: Path, back: Path) -> bool:
    """Wait until the file is there, for it is verified first; tell whether it is the same."""
    deadline = time.monotonic() + WAIT_SECONDS
    with version.person.client() as client:
        while not client.head(f"{version.url}/large").is_success:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
    version.fetch("large", back)
    return subprocess.run(["cmp", source, back], check=False).returncode == 0


def collected_under_kills(folder: Path) -> Verdict:
    """Free many files, killing the collection again and again; one file among them must stay."""
    settings = {"MAAS_STORAGE__UNUSED_GRACE_MINUTES": "0"}
    with running(folder, settings=settings) as platform:
        version, parts = _make_version(platform), platform.data_dir / "artifacts" / "parts"
        staying = secrets.token_bytes(3 * MIB)
        with version.person.client() as client:
            client.put(f"{version.url}/staying", content=staying).raise_for_status()
            kept = _objects(parts)
            for number in range(FILES):
                body = secrets.token_bytes(64 * 1024)
                client.put(f"{version.url}/{number}", content=body).raise_for_status()
            for number in range(FILES):
                client.delete(f"{version.url}/{number}").raise_for_status()
            full, step = len(_objects(parts)), len(_objects(parts) - kept) // COLLECTOR_KILLS
            killed = [
                _collect(platform, parts, kill_below=full - number * step)
                for number in range(COLLECTOR_KILLS)
            ]
            half_way = len({count for count in killed if count is not None})
            _collect(platform, parts, kill_below=None)
            left = _objects(parts) - kept
            is_there = client.get(f"{version.url}/staying").content == staying
    return all_of(
        (half_way > 1, f"killed {len(killed)} times, with {half_way} different numbers left"),
        (not left, f"{len(left)} objects left of {FILES}"),
        (is_there, "the file that was not deleted is whole"),
    )


# In small steps, for there are more moments then at which it can be killed.
COLLECT = """
import asyncio
from maas.model.application import collection
from maas.shared.infrastructure.settings import load_settings
from maas.worker_services import collect_artifacts
collection.DELETED_AT_ONCE = 5
print("begun", flush=True)
asyncio.run(collect_artifacts(load_settings()))
"""


def _collect(platform: Platform, parts: Path, *, kill_below: int | None) -> int | None:
    """Run the task's own function in a process of its own; tell how many objects a kill left.

    It is killed as soon as there are fewer objects than that, so that there is something left for
    the next one, or by chance before; without a number it is left to end.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", COLLECT],
        env=clean_environment(**_settings_of(platform)),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    seconds = random.choice((WAIT_SECONDS, random.uniform(0.05, 2.0)))  # noqa: S311  when to kill
    patience = time.monotonic() + seconds
    while kill_below is not None and process.poll() is None:
        if time.monotonic() > patience or len(_objects(parts)) < kill_below:
            process.kill()
            break
    process.communicate(timeout=WAIT_SECONDS)
    return len(_objects(parts)) if process.returncode else None


def _settings_of(platform: Platform) -> dict[str, str]:
    environment = platform.environment_of("serve")
    return {name: value for name, value in environment.items() if name.startswith("MAAS_")}


def _objects(parts: Path) -> set[Path]:
    # Folders go while it looks, which `rglob` would not take.
    return {Path(folder) / name for folder, _, names in os.walk(parts) for name in names}


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _make_version(platform: Platform) -> Version:
    person = platform.sign_in()
    with person.client() as client:
        new = {"name": person.name, "framework": "other"}
        made = client.post("/api/v1/models", json=new).raise_for_status().json()
        versions = f"/api/v1/models/{made['id']}/versions"
        client.post(versions, json={"version": "1"}).raise_for_status()
    return Version(person=person, model_id=made["id"])


def _fill(path: Path, size_mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))


@contextmanager
def _growth_of(platform: Platform) -> Iterator[Callable[[], float]]:
    """Watch the API's memory; what is given tells how many MiB it grew at most since last asked."""
    api: psutil.Process = platform.of_role("serve")[0]
    resting = peak = api.memory_info().rss
    with ExitStack() as ending:
        is_over = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not is_over.wait(0.05):
                peak = max(peak, api.memory_info().rss)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        ending.callback(watching.join)
        ending.callback(is_over.set)

        def growth() -> float:
            nonlocal peak
            grown, peak = (peak - resting) / MIB, api.memory_info().rss
            return grown

        yield growth
