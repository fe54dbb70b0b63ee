import asyncio
from pathlib import Path

from maas.client.bodies import CHUNK_BYTES, Body
from maas.client.folder import survey
from tests.fakes.folders import fill


async def test_a_body_that_nobody_waits_for_ends_quietly(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"model.gguf": b"x" * (CHUNK_BYTES + 1)})
    file = survey(folder, with_hidden=False, with_links=False).files[0]
    moved: list[int] = []
    body = Body(file=file, start=0, stop=file.size, moved=moved.append, stall_seconds=1)

    async with asyncio.timeout(10) as deadline:
        chunks = body.chunks(deadline)
        assert len(await anext(chunks)) == CHUNK_BYTES
    assert len(await anext(chunks)) == 1
    await chunks.aclose()  # type: ignore[attr-defined]  # a generator

    assert moved == [CHUNK_BYTES]
