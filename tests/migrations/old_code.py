"""The code from before the newest revision, on the schema after it, as upgrades have it awhile.

`maas migrate` runs first and the processes are replaced one by one, so the old ones work on.
"""

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import httpx

from tests.pair import ADMIN, DatabaseUrls, Pair, running_pair
from tests.servers import Servers

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = ("src", "alembic", "alembic.ini", "pyproject.toml")


class OldCodeError(Exception):
    """The old code cannot be had, or does not work on the new schema."""


def run_old_code(servers: Servers, database: str) -> list[str]:
    """Have the old code do a little of everything, and tell what it did.

    Raises:
        OldCodeError: it cannot be found, or did something other than it should.
    """
    commit = _commit_before_newest()
    with tempfile.TemporaryDirectory(prefix="maas-old-") as name:
        folder = Path(name)
        packed = _git("archive", commit, *KEPT)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        urls = DatabaseUrls(
            app=servers.database_url(database, "maas_app"),
            owner=servers.database_url(database, "maas_owner"),
            system=servers.database_url(database, "maas_system"),
        )
        settings = {"PYTHONPATH": os.fspath(folder / "src")}
        with running_pair(urls, settings, with_worker=True) as pair:
            _check_where_it_is_from(pair, folder)
            return [f"commit {commit[:10]}", *_use(pair)]


def _commit_before_newest() -> str:
    newest = max(path.name for path in (ROOT / "alembic" / "versions").glob("*.py"))
    added = _git("log", "--diff-filter=A", "--format=%H", "--", f"alembic/versions/{newest}")
    if not added.strip():
        # Not committed yet: what is committed is the old code.
        return _git("rev-parse", "HEAD").decode().strip()
    return _git("rev-parse", f"{added.decode().split()[-1]}^").decode().strip()


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise OldCodeError(done.stderr.decode().strip())
    return done.stdout


def _check_where_it_is_from(pair: Pair, folder: Path) -> None:
    for name, process in pair.processes.items():
        maps = Path(f"/proc/{process.pid}/environ").read_text(encoding="utf-8", errors="replace")
        if f"PYTHONPATH={folder / 'src'}" not in maps:
            raise OldCodeError(f"{name} does not run the old code")


def _use(pair: Pair) -> list[str]:
    done = []
    login = {"username": ADMIN, "password": pair.password}
    name = "made-by-old-code"
    with httpx.Client(base_url=pair.apis[0].url, timeout=30, trust_env=False) as client:

        def ask(method: str, path: str, expected: int, **options: object) -> httpx.Response:
            answer = client.request(method, path, **options)  # type: ignore[arg-type]  # passed on
            if answer.status_code != expected:
                message = f"{method} {path} is answered {answer.status_code}: {answer.text[:300]}"
                raise OldCodeError(message)
            done.append(f"{method} {path} {expected}")
            return answer

        ask("GET", "/health/ready", 200)
        token = ask("POST", "/api/v1/auth/login", 200, json=login).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        ask("GET", "/api/v1/users/profile", 200)
        body = {"name": name, "framework": "other"}
        model = ask("POST", "/api/v1/models", 201, json=body).json()["id"]
        ask("PUT", f"/api/v1/models/{model}", 200, json={"description": "still old"})
        ask("GET", f"/api/v1/models/{model}", 200)
        person = {"username": name, "email": f"{name}@example.com", "password": pair.password}
        ask("POST", "/api/v1/admin/users", 201, json={**person, "roles": ["user"]})
        ask("POST", "/api/v1/users/api-keys", 201, json={"name": name, "scopes": ["model:read"]})
        ask("GET", "/api/v1/models?limit=10", 200)
        ask("GET", "/api/v1/admin/users?limit=10", 200)
        ask("GET", "/api/v1/audit/logs?action=model.created&limit=10", 200)
        ask("DELETE", f"/api/v1/models/{model}", 204)
    return done
