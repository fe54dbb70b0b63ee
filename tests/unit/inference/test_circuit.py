"""When a target is left alone, and who may find out that it is well again."""

from hypothesis import given
from hypothesis import strategies as st

from maas.inference.domain.circuit import Circuit, CircuitRules, Permit
from tests.factories.routes import seeded

RULES = CircuitRules(failures_in_row=3, wait_seconds=10, longest_wait_seconds=40)
LATEST_DUE = 12.0
"""Waits are spread by a fifth."""


def make_circuit(rules: CircuitRules = RULES) -> Circuit:
    return Circuit(rules, seeded())


def enter(circuit: Circuit, now: float) -> Permit:
    permit = circuit.enter(now)
    assert permit is not None
    return permit


def open_up(circuit: Circuit, now: float = 0.0) -> None:
    for _ in range(RULES.failures_in_row):
        enter(circuit, now).failed(now)


class TestClosed:
    def test_it_opens_after_so_many_failures_in_a_row(self) -> None:
        circuit = make_circuit()

        told = [enter(circuit, 0).failed(0) for _ in range(3)]

        assert told == [False, False, True]
        assert circuit.state(0) == "open"
        assert circuit.enter(0) is None

    def test_a_success_between_failures_starts_the_row_anew(self) -> None:
        circuit = make_circuit()

        for _ in range(5):
            enter(circuit, 0).failed(0)
            enter(circuit, 0).failed(0)
            enter(circuit, 0).succeeded(0)

        assert circuit.state(0) == "closed"

    def test_it_opens_when_half_of_many_calls_fail_though_never_in_a_row(self) -> None:
        circuit = make_circuit()

        for _ in range(10):
            enter(circuit, 1).succeeded(1)
            enter(circuit, 1).failed(1)

        assert circuit.state(1) == "open"

    def test_failures_of_long_ago_do_not_add_up(self) -> None:
        circuit = make_circuit()

        for at in range(0, 400, 20):
            enter(circuit, at).succeeded(at)
            enter(circuit, at).failed(at)

        assert circuit.state(400) == "closed"

    def test_a_call_counts_once_whatever_is_said_of_it(self) -> None:
        circuit = make_circuit()
        permit = enter(circuit, 0)

        for _ in range(9):
            permit.failed(0)

        assert circuit.state(0) == "closed"


class TestOpen:
    def test_one_call_tries_after_the_wait_and_no_other(self) -> None:
        circuit = make_circuit()
        open_up(circuit)

        early, probe, second = circuit.enter(7.9), circuit.enter(LATEST_DUE), circuit.enter(13)

        assert early is None
        assert probe is not None
        assert probe.is_probe
        assert second is None
        assert circuit.state(13) == "half-open"

    def test_the_first_byte_of_a_probe_closes_it(self) -> None:
        circuit = make_circuit()
        open_up(circuit)

        enter(circuit, LATEST_DUE).answered(LATEST_DUE)

        assert circuit.state(LATEST_DUE) == "closed"

    def test_a_probe_whose_answer_breaks_off_later_is_one_failure(self) -> None:
        circuit = make_circuit()
        open_up(circuit)
        probe = enter(circuit, LATEST_DUE)
        probe.answered(LATEST_DUE)

        assert probe.failed(20) is False

        assert circuit.state(20) == "closed"
        enter(circuit, 20).failed(20)
        assert enter(circuit, 20).failed(20) is True

    def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest(self) -> None:
        circuit = make_circuit()
        open_up(circuit)
        now, waits = 0.0, []

        for _ in range(40):
            wait = circuit.seconds_until_due(now)
            waits.append(wait)
            now += wait
            enter(circuit, now).failed(now)

        assert 8 <= waits[0] <= 12
        assert 16 <= waits[1] <= 24
        assert all(32 <= wait <= 48 for wait in waits[2:])

    def test_a_prober_that_leaves_lets_the_next_one_try(self) -> None:
        circuit = make_circuit()
        open_up(circuit)

        enter(circuit, LATEST_DUE).abandon()

        assert enter(circuit, LATEST_DUE).is_probe

    def test_what_calls_of_before_come_to_says_nothing_of_now(self) -> None:
        circuit = make_circuit()
        long_one, other = enter(circuit, 0), enter(circuit, 0)
        open_up(circuit)

        long_one.succeeded(1)
        other.failed(1)

        assert circuit.state(1) == "open"
        assert 7 <= circuit.seconds_until_due(1) <= 11

    def test_what_is_seen_to_be_down_is_left_alone_longer(self) -> None:
        circuit = make_circuit()
        open_up(circuit)

        circuit.found_down(11, again_seconds=7)

        assert circuit.enter(17.9) is None
        assert circuit.enter(18) is not None

    def test_a_look_changes_nothing_of_a_closed_one(self) -> None:
        circuit = make_circuit()

        circuit.found_down(0, again_seconds=100)

        assert circuit.state(0) == "closed"


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0, 20),
            st.sampled_from(["enter", "answered", "succeeded", "failed", "abandon", "look"]),
            st.integers(0, 9),
        ),
        max_size=80,
    )
)
def test_whatever_happens_one_call_at_most_tries_and_none_is_kept_out_for_ever(
    steps: list[tuple[float, str, int]],
) -> None:
    circuit, now = make_circuit(), 0.0
    permits: list[Permit] = []
    for later, what, which in steps:
        now += later
        if what == "enter":
            permit = circuit.enter(now)
            permits += [permit] if permit else []
        elif what == "look":
            circuit.found_down(now, again_seconds=5)
        elif permits:
            permit = permits[which % len(permits)]
            getattr(permit, what)(*([] if what == "abandon" else [now]))
        assert sum(permit.is_probe for permit in permits) <= 1

    for permit in permits:
        permit.abandon()

    assert circuit.enter(now + 100) is not None
