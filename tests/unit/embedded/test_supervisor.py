import io
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from maas.embedded.errors import ServerStartError
from maas.embedded.logs import LogFile
from maas.embedded.processes import Pulse
from maas.embedded.screen import Screen
from maas.embedded.supervisor import Supervisor


@dataclass
class FakeClock:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class FakeService:
    """Runs until it is told to have ended; refuses to start as often as it is told to."""

    title: str = "Thing"
    log: LogFile = field(default_factory=lambda: LogFile(Path("/nonexistent/thing.log")))
    is_down: bool = False
    refusals: int = 0
    starts: int = 0

    def start(self, _pulse: Pulse) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ServerStartError("Thing did not start.", "Look at it.")
        self.starts += 1
        self.is_down = False

    def has_ended(self) -> bool:
        return self.is_down

    def reap(self) -> int:
        return -9


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def supervisor(clock: FakeClock, output: io.StringIO, service: FakeService) -> Supervisor:
    supervisor = Supervisor(screen=Screen(output), pulse=lambda: None, clock=clock)
    supervisor.watch(service)
    return supervisor


class TestRestart:
    def test_leaves_a_running_service_alone(
        self, supervisor: Supervisor, service: FakeService, output: io.StringIO
    ) -> None:
        supervisor.look_after_all()

        assert service.starts == 0
        assert not output.getvalue()

    def test_waits_for_the_first_pause(
        self, supervisor: Supervisor, service: FakeService, clock: FakeClock
    ) -> None:
        service.is_down = True
        supervisor.look_after_all()

        clock.seconds += 0.19
        supervisor.look_after_all()
        starts_too_early = service.starts
        clock.seconds += 0.02
        supervisor.look_after_all()

        assert (starts_too_early, service.starts) == (0, 1)

    def test_says_what_ended_it(
        self, supervisor: Supervisor, service: FakeService, output: io.StringIO
    ) -> None:
        service.is_down = True

        supervisor.look_after_all()

        assert output.getvalue().startswith("Thing ended (SIGKILL); starting it again in 0.2 s.")

    def test_pauses_double_up_to_five_seconds(
        self,
        supervisor: Supervisor,
        service: FakeService,
        clock: FakeClock,
        output: io.StringIO,
    ) -> None:
        for _ in range(7):
            service.is_down = True
            supervisor.look_after_all()
            clock.seconds += 5.1
            supervisor.look_after_all()

        lines = [line for line in output.getvalue().splitlines() if "again in" in line]
        pauses = [line.split("again in ")[1].split(" s")[0] for line in lines]
        assert pauses == ["0.2", "0.4", "0.8", "1.6", "3.2", "5.0", "5.0"]

    def test_pauses_are_short_again_after_a_steady_run(
        self, supervisor: Supervisor, service: FakeService, clock: FakeClock
    ) -> None:
        for _ in range(3):
            service.is_down = True
            supervisor.look_after_all()
            clock.seconds += 5
            supervisor.look_after_all()

        clock.seconds += 10.1
        supervisor.look_after_all()

        assert supervisor.failures(service) == 0

    def test_tries_again_when_a_start_fails(
        self, supervisor: Supervisor, service: FakeService, clock: FakeClock
    ) -> None:
        service.is_down, service.refusals = True, 2

        for _ in range(4):
            supervisor.look_after_all()
            clock.seconds += 1

        assert service.starts == 1
        assert supervisor.failures(service) == 3
