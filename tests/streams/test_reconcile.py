"""What is wrong in one of the books must be found; the long run is `make acceptance`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from tests.chaos.invariants import Report
from tests.streams.book import Book, Call
from tests.streams.reconcile import Books, Event, Row, cost_of, reconcile

PRICES: Final = {"currency": "EUR", "input": "2.5", "output": "10"}
CHEAP: Final = {"currency": "EUR", "input": "0.0003", "output": "0.0007", "request": "0.0000004"}
NAME: Final = "r"
ROW: Final = Row(input=20, output=18, cost_nanos=230_000, is_estimated=False)
GUESS: Final = replace(ROW, is_estimated=True)
DONE: Final = Event(outcome="success", reason=None)
EXPIRED: Final = Event(outcome="failure", reason="lease-expired")


def make_upstream(**known: object) -> dict[str, Any]:
    return {
        "prompt_tokens": 20,
        "completion_tokens": 18,
        "told_prompt_tokens": 20,
        "told_completion_tokens": 18,
        **known,
    }


def make_books(**known: Any) -> Books:
    """Make the books of one call that all went well with."""
    call = Call(
        request_id=NAME,
        deployment="steady",
        is_stream=True,
        body_bytes=30,
        has_limit=True,
        hangs_up=False,
        status=200,
        deltas=18,
        usage={"prompt_tokens": 20, "completion_tokens": 18},
        is_whole=True,
    )
    for name, value in known.items():
        setattr(call, name, value)
    books = Books(callers=Book({NAME: call}))
    books.upstream[NAME].append(make_upstream())
    books.rows[NAME].append(ROW)
    books.events[NAME].append(DONE)
    return books


def find(books: Books) -> set[str]:
    report = Report()
    reconcile(books, report, prices={"steady": PRICES, "silent": PRICES}, silent="silent")
    return {name for name, found in report.broken.items() if found}


def test_books_that_agree_have_nothing_wrong() -> None:
    assert find(make_books()) == set()


def test_a_call_that_hung_up_is_estimated() -> None:
    books = make_books(hangs_up=True, is_whole=False, deltas=7, usage=None)
    books.upstream[NAME] = [make_upstream(completion_tokens=9)]
    books.rows[NAME] = [replace(GUESS, output=7, cost_nanos=120_000)]

    assert find(books) == set()


def test_a_call_tried_twice_is_charged_for_the_last_try() -> None:
    books = make_books()
    books.upstream[NAME].insert(0, make_upstream(completion_tokens=0))

    assert find(books) == set()


def test_a_call_of_a_killed_process_is_booked_in_full_or_by_its_progress() -> None:
    books = make_books(is_whole=False, usage=None, deltas=3)
    books.rows[NAME] = [replace(GUESS, input=0, output=21, cost_nanos=150_000)]
    books.events[NAME] = [EXPIRED]

    assert find(books) == set()


def test_a_call_that_nothing_could_take_at_the_moment_leaves_nothing() -> None:
    books = make_books(status=503, is_whole=False, usage=None, deltas=0)
    for book in (books.upstream, books.rows, books.events):
        book.clear()

    assert find(books) == set()


def lose_row(books: Books) -> None:
    books.rows[NAME].clear()


def double_row(books: Books) -> None:
    books.rows[NAME].append(ROW)


def lose_event(books: Books) -> None:
    books.events[NAME].clear()


def double_event(books: Books) -> None:
    books.events[NAME].append(DONE)


def make_up_row(books: Books) -> None:
    books.rows["nobody's"].append(ROW)


def count_wrongly(books: Books) -> None:
    books.rows[NAME] = [replace(ROW, output=17, cost_nanos=220_000)]


def forget_to_settle(books: Books) -> None:
    books.rows[NAME], books.events[NAME] = [GUESS], [EXPIRED]


def price_wrongly(books: Books) -> None:
    books.rows[NAME] = [replace(ROW, cost_nanos=229_999)]


def book_nothing(books: Books) -> None:
    books.rows[NAME] = [Row(input=0, output=0, cost_nanos=0, is_estimated=False)]


def book_less_than_was_seen(books: Books) -> None:
    call = books.callers.calls[NAME]
    call.hangs_up, call.is_whole, call.usage, call.deltas = True, False, None, 10
    books.rows[NAME] = [replace(GUESS, output=9, cost_nanos=140_000)]


def refuse_without_event(books: Books) -> None:
    books.callers.calls[NAME].status = 402
    for book in (books.upstream, books.rows, books.events):
        book.clear()


def charge_for_what_was_refused(books: Books) -> None:
    books.upstream.clear()


@pytest.mark.parametrize(
    ("break_it", "found"),
    [
        (lose_row, "one row, one event"),
        (double_row, "one row, one event"),
        (lose_event, "one row, one event"),
        (double_event, "one row, one event"),
        (make_up_row, "made up"),
        (count_wrongly, "exact"),
        (forget_to_settle, "heard"),
        (price_wrongly, "costs"),
        (book_nothing, "exact"),
        (book_less_than_was_seen, "estimates"),
        (refuse_without_event, "one row, one event"),
        (charge_for_what_was_refused, "exact"),
    ],
)
def test_what_is_wrong_is_found(break_it: Callable[[Books], None], found: str) -> None:
    books = make_books()
    break_it(books)

    assert found in find(books)


def test_a_cost_below_a_micro_unit_is_rounded_once() -> None:
    row = Row(input=20, output=18, cost_nanos=0, is_estimated=False)

    # 6 and 12.6 nano-units of tokens, and 400 for the request.
    assert cost_of(row, CHEAP) == 419
