import io

from rich.console import Console

from maas.client.board import Board


def test_bars_move_by_what_each_file_says() -> None:
    said = io.StringIO()
    board = Board(Console(file=said, force_terminal=True, width=120, color_system=None))
    board.expect(300)
    with board:
        one, other = board.bar("one", 100), board.bar("[red]other\x1b[2J", 200)
        one.set(50)
        other.resume(150)
        one.set(20)
        one.say("a moment")
        one.close("sent", "100 bytes")
        total = board.totals()

    assert total == (170, 300)
    text = said.getvalue()
    assert "[red]other\\x1b[2J" in text
    assert "\x1b[2J" not in text
    assert "sent      one  100 bytes" in text


def test_without_a_terminal_there_are_lines_and_no_bars() -> None:
    said = io.StringIO()
    with Board(Console(file=said, width=120)) as board:
        bar = board.bar("one", 100)
        bar.say("hashing")
        for _ in range(3):
            bar.warn("the connection broke; trying again in 1 s")
        bar.set(100)
        bar.close("sent", "100 bytes")

    assert said.getvalue().splitlines() == [
        "one: the connection broke; trying again in 1 s",
        "sent      one  100 bytes",
    ]
