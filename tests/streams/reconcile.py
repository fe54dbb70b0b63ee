"""Three books held against one another: what callers heard, what the upstream did, what we keep.

All here is plain: calls by request id go in, what is wrong with them comes out.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, TypeAlias

from typing_extensions import override

from tests.chaos.invariants import Report
from tests.streams.book import Book, Call

UNAVAILABLE: Final = 503
MILLION: Final = 1_000_000
NANOS: Final = 10**9
ROUNDING_NANOS: Final = 2
LEASE_EXPIRED: Final = "lease-expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of our ledger."""

    requests: int = 1
    input: int
    cached: int = 0
    output: int
    reasoning: int = 0
    cost_nanos: int
    is_estimated: bool

    @property
    def told(self) -> tuple[int, int]:
        """Count as an upstream does: reasoning is a part of what it completed."""
        return self.input, self.output + self.reasoning

    @property
    def tokens(self) -> int:
        return sum(self.told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An `inference.completed` of the audit log."""

    outcome: str
    reason: str | None


Upstream: TypeAlias = Mapping[str, Any]
"""A call as the upstream's ledger tells it."""


@dataclass(slots=True, kw_only=True)
class Books:
    """All that is known of each request id."""

    callers: Book
    upstream: dict[str, list[Upstream]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))


@dataclass(slots=True, kw_only=True)
class Difference:
    """How estimates differ from what the upstream generated."""

    calls: int = 0
    ours: int = 0
    theirs: int = 0
    most: int = 0

    def add(self, row: Row, generated: int) -> None:
        ours = row.output + row.reasoning
        self.calls += 1
        self.ours += ours
        self.theirs += generated
        self.most = max(self.most, abs(ours - generated))

    @override
    def __str__(self) -> str:
        return (
            f"{self.calls} calls, {self.ours:,} tokens of answers where the upstream wrote "
            f"{self.theirs:,}, {self.most} at most in one"
        )


def reconcile(
    books: Books, report: Report, *, prices: Mapping[str, Mapping[str, str]], silent: str
) -> None:
    """Check everything; `prices` are by deployment, and `silent` is one that tells no usage."""
    known = set(books.callers.calls)
    report.check("made up", sorted((set(books.upstream) | set(books.rows)) - known))
    exact, unsent = 0, 0
    estimated: dict[str, Difference] = defaultdict(Difference)
    for call in books.callers.calls.values():
        name = call.request_id
        rows, events = books.rows.get(name, []), books.events.get(name, [])
        sent = books.upstream.get(name, [])
        report.check("one row, one event", _check_counts(call, sent, rows, events))
        for row in rows:
            reason = events[0].reason if events else None
            report.check("costs", _check_cost(call, row, prices[call.deployment], reason))
            if row.is_estimated:
                report.check("estimates", _check_estimate(call, sent, row, reason))
                generated = sent[-1]["completion_tokens"] if sent else 0
                estimated[_why(call, reason, silent)].add(row, generated)
            else:
                report.check("exact", _check_exact(call, sent, row))
                exact += row.tokens > 0
        if not call.hangs_up and call.is_whole and call.deployment != silent:
            report.check("heard", _check_heard(call, rows))
        unsent += bool(rows) and not sent
    report.figures["settled to the token"] = exact
    report.figures["held and never sent"] = unsent
    report.figures |= {f"estimated, {why}": str(each) for why, each in sorted(estimated.items())}


def _why(call: Call, reason: str | None, silent: str) -> str:
    if reason == LEASE_EXPIRED:
        return "the lease expired"
    if call.deployment == silent:
        return "no usage is told"
    return "the caller hung up" if call.hangs_up and not call.is_whole else "the upstream broke off"


def _check_counts(
    call: Call, sent: Sequence[Upstream], rows: Sequence[Row], events: Sequence[Event]
) -> Iterator[str]:
    """What was sent, in as many tries as it took, has one row and one event; the rest, no row."""
    name = f"{call.request_id} ({call.status} {call.code or ''}, {len(sent)} tries)"
    if sent and (len(rows), len(events)) != (1, 1):
        yield f"{name}: {len(rows)} rows, {len(events)} events"
    elif len(rows) > 1 or len(events) > 1 or (rows and not events):
        yield f"{name}, not sent: {len(rows)} rows, {len(events)} events"
    elif call.status not in {None, UNAVAILABLE} and not events:
        # That nothing could be asked at the moment is no act.
        yield f"{name}: answered, and no event"
    if any(row.requests != 1 for row in rows):
        yield f"{name}: {rows}"


def _check_exact(call: Call, sent: Sequence[Upstream], row: Row) -> Iterator[str]:
    """What is not estimated is what the upstream told and did, or nothing where it did nothing."""
    if not sent:
        yield f"{call.request_id}: never sent, and {row}"
        return
    last = sent[-1]
    if row.tokens == 0:
        if last["completion_tokens"]:
            yield f"{call.request_id}: nothing booked of {dict(last)}"
        return
    told = (last["told_prompt_tokens"], last["told_completion_tokens"])
    done = (last["prompt_tokens"], last["completion_tokens"])
    if not row.told == told == done:
        yield f"{call.request_id}: {row} of {dict(last)}"


def _check_estimate(
    call: Call, sent: Sequence[Upstream], row: Row, reason: str | None
) -> Iterator[str]:
    """Never nothing for what was generated, nor less than the caller has seen."""
    if sent and sent[-1]["completion_tokens"] and row.tokens == 0:
        yield f"{call.request_id}: nothing booked of {dict(sent[-1])}"
    # Of a process that was killed, the last progress is all that is known.
    if reason != LEASE_EXPIRED and row.output + row.reasoning < call.deltas:
        yield f"{call.request_id}: {row}, and the caller saw {call.deltas} pieces"


def _check_heard(call: Call, rows: Iterable[Row]) -> Iterator[str]:
    """Whoever heard an answer to its end is charged what it says, and nothing is estimated."""
    for row in rows:
        if row.is_estimated:
            yield f"{call.request_id}: heard to its end, and {row}"
        elif call.usage is not None:
            told = (call.usage["prompt_tokens"], call.usage["completion_tokens"])
            if told != row.told:
                yield f"{call.request_id}: told {told}, and {row}"


def _check_cost(
    call: Call, row: Row, prices: Mapping[str, str], reason: str | None
) -> Iterator[str]:
    cost = cost_of(row, prices)
    is_right = row.cost_nanos == cost
    if reason == LEASE_EXPIRED:
        # All its tokens are booked as output, which costs more than what some of them were.
        is_right = row.cost_nanos <= cost + ROUNDING_NANOS
    elif row.tokens == 0:
        # What came to nothing does not cost the price of a request either.
        is_right = row.cost_nanos == 0
    if not is_right:
        yield f"{call.request_id}: {row} costs {cost} ({reason})"


def cost_of(row: Row, prices: Mapping[str, str]) -> int:
    """Price a row by nothing of the product's: exactly, and rounded once, half up."""
    whole = (
        row.input * Fraction(prices["input"])
        + (row.output + row.reasoning) * Fraction(prices["output"])
    ) / MILLION + Fraction(prices.get("request", "0")) * row.requests
    return int(whole * NANOS + Fraction(1, 2))
