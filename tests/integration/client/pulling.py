"""A pull as tests want it: few bytes a stretch, and one stretch at a time unless they say more."""

import os
from pathlib import Path

from maas.client.board import Board
from maas.client.pull import Pulled, PullOptions, pull
from tests.fakes.registry import FakeRegistry

LARGE = os.urandom(700_001)
FILES = {"config.json": b"{}", "weights/model.safetensors": LARGE}


async def fetch(
    registry: FakeRegistry,
    board: Board,
    folder: Path,
    reference: str = "bot",
    *,
    is_forced: bool = False,
    with_hidden: bool = False,
    parallel: int = 1,
    failures: int = 4,
) -> Pulled:
    options = PullOptions(
        reference=reference,
        folder=folder,
        version=None,
        is_forced=is_forced,
        with_hidden=with_hidden,
        parallel=parallel,
        stretch_bytes=100_000,
    )
    async with registry.api(failures=failures) as api:
        return await pull(api, options, board)
