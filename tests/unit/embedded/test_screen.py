import io

import pytest
from typing_extensions import override

from maas.embedded.errors import EmbeddedError
from maas.embedded.screen import Screen


class Terminal(io.StringIO):
    encoding = "utf-8"

    @override
    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    @override
    def write(self, text: str, /) -> int:
        raise BrokenPipeError


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


class TestPlainOutput:
    def test_has_a_line_for_each_step(self) -> None:
        output = io.StringIO()
        screen = Screen(output)

        screen.begin("PostgreSQL")
        screen.done("PostgreSQL")

        assert output.getvalue() == "PostgreSQL: done in 0.00 s\n"

    def test_shows_a_message_and_a_way_out(self) -> None:
        output = io.StringIO()

        Screen(output).fail(EmbeddedError("The disk is full.", "Free some space."))

        assert output.getvalue() == "The disk is full.\nFree some space.\n"

    def test_a_reader_that_left_is_no_reason_to_fail(self) -> None:
        Screen(ClosedPipe()).say("Is anybody there?")


class TestTerminal:
    def test_ticks_off_each_step(self, terminal: Terminal) -> None:
        screen = Screen(terminal)

        screen.begin("PostgreSQL")
        screen.tick()
        screen.done("PostgreSQL")

        assert "✓" in terminal.getvalue()
        assert "\x1b[32m" in terminal.getvalue()

    def test_has_no_colours_when_asked(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        screen = Screen(terminal)

        screen.begin("PostgreSQL")
        screen.done("PostgreSQL")
        screen.show_panel("MaaS is up", {"API": "http://127.0.0.1:8000"})

        assert "✓" in terminal.getvalue()
        assert not [code for code in range(30, 50) if f"\x1b[{code}m" in terminal.getvalue()]

    def test_shows_where_everything_is(self, terminal: Terminal) -> None:
        Screen(terminal).show_panel("MaaS is up", {"API": "http://127.0.0.1:8000"})

        assert "MaaS is up" in terminal.getvalue()
        assert "http://127.0.0.1:8000" in terminal.getvalue()
