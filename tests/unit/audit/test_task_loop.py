import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from maas.shared.infrastructure.task_loop import TaskLoop

SECOND = timedelta(seconds=1)


class Services:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_open = True


@pytest.fixture
def made() -> list[Services]:
    return []


@pytest.fixture
def loop(made: list[Services]) -> Iterator[TaskLoop[Services]]:
    def build() -> Services:
        made.append(Services())
        return made[-1]

    async def dispose(services: Services) -> None:
        services.is_open = False

    loop = TaskLoop(build, dispose)
    yield loop
    loop.close()


def test_runs_on_services_made_once(loop: TaskLoop[Services], made: list[Services]) -> None:
    async def work(services: Services) -> bool:
        return services.loop is asyncio.get_running_loop()

    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(loop.run(work, time_limit=SECOND)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [True] * 5
    assert len(made) == 1


def test_cancels_what_takes_too_long(loop: TaskLoop[Services]) -> None:
    ended = threading.Event()

    async def work(_: Services) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        loop.run(work, time_limit=timedelta(milliseconds=20))

    assert ended.wait(1)


def test_ends_its_services_and_can_start_again(
    loop: TaskLoop[Services], made: list[Services]
) -> None:
    async def work(services: Services) -> bool:
        return services.is_open

    assert loop.run(work, time_limit=SECOND)

    loop.close()

    assert not made[0].is_open
    assert loop.run(work, time_limit=SECOND)
    assert len(made) == 2


def test_tries_again_after_services_could_not_be_made() -> None:
    attempts: list[int] = []

    def build() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError
        return 7

    async def dispose(_: int) -> None: ...

    async def work(services: int) -> int:
        return services

    loop = TaskLoop(build, dispose)
    with pytest.raises(OSError):  # noqa: PT011  it is the very one raised above
        loop.run(work, time_limit=SECOND)

    assert loop.run(work, time_limit=SECOND) == 7
    loop.close()
