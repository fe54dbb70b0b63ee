"""Runtime hosts for tests, each on a port of its own. As a script: one until it is killed."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvicorn

from maas.inference.application.runtime import RuntimeService
from maas.inference.application.runtime_pool import PoolLimits, RuntimePool
from maas.inference.infrastructure.runtime_cache import FolderWeightCache
from maas.inference.infrastructure.runtime_processes import LlamaProcesses
from maas.inference.interface.runtime_server import RuntimeServer
from maas.model.public import VersionId, VersionWeights
from tests.fakes.runtime import FakeWeights, version

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_model.py")))
TOKEN = "a-token-of-tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    url: str
    pool: RuntimePool
    folder: Path
    serving: "asyncio.Task[None]"

    def base(self, version_id: VersionId) -> str:
        return f"{self.url}/versions/{version_id}/v1"


@asynccontextmanager
async def running_host(
    folder: Path,
    weights: VersionWeights,
    *,
    command: Sequence[str] = STAND_IN,
    token: str = TOKEN,
) -> AsyncIterator[Host]:
    cache = FolderWeightCache(folder, max_bytes=2**40, weights=weights)
    pool = RuntimePool(
        weights=weights,
        cache=cache,
        processes=LlamaProcesses(load_within=timedelta(seconds=30), command=command),
        limits=PoolLimits(
            memory_bytes=2**40,
            max_models=2,
            idle=None,
            context_length=512,
            answers_at_once=2,
            threads=1,
        ),
    )

    async def opened() -> None:
        cache.open()

    async def closing() -> None:
        await pool.close()
        cache.close()

    app = RuntimeServer(RuntimeService(pool=pool), token=token, opened=opened, closing=closing)
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=1
        )
    )
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110  uvicorn tells it in no other way
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Host(url=f"http://127.0.0.1:{port}", pool=pool, folder=folder, serving=serving)
    finally:
        server.should_exit = True
        await serving


async def main(folder: Path) -> None:
    weights = FakeWeights()
    weights.add(version(1), b"sound")
    async with running_host(folder, weights) as host, host.pool.using(version(1), "generate") as on:
        sys.stdout.write(f"pid {on.pid}\n")  # type: ignore[attr-defined]  # a LlamaProcess has one
        sys.stdout.flush()
        await host.serving


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    asyncio.run(main(Path(sys.argv[1])))
