"""One role's share of a fuzz: the library's phases over the whole document, as this role."""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import schemathesis
from schemathesis import BaseSchema, HookContext, Response
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from tests.fuzz.checks import OFF, ON, AnyCase, Contract, add_checks, documented_codes
from tests.fuzz.people import ANONYMOUS, Caller, Keeper, MakeAdmin
from tests.fuzz.seeds import Seeds, lay_seeds
from tests.fuzz.tally import Fault, Tally

ROOT: Final = Path(__file__).parents[2]
COVERAGE_SHARE: Final = 0.35
"""Of the requests: each bound of each field, and each method that there is not."""
STATEFUL_SHARE: Final = 0.25
DEAD: Final = {"invalid-token", "invalid-api-key", "superseded-key", "unauthenticated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one role is to do."""

    url: str
    role: str
    requests: int
    seed: int
    document: Mapping[str, Any]
    seeds: Seeds
    secrets: Sequence[str]
    keeper: tuple[str, str]
    """Name and password of an administrator of everything."""

    seconds: float = math.inf
    only: Sequence[str] = ()
    slow_seconds: float | None = None


def take_turn(order: Order, make_admin: MakeAdmin, progress: Callable[[int], None]) -> Tally:
    """Fuzz as one role until it has asked as often as it is to."""
    return _Turn(order, make_admin, progress).run()


class _Turn:
    def __init__(
        self, order: Order, make_admin: MakeAdmin, progress: Callable[[int], None]
    ) -> None:
        self.order = order
        self.progress = progress
        self.tally = Tally()
        self.caller = Caller(order.role, Keeper(order.url, order.keeper, make_admin))
        self.deadline = time.monotonic() + order.seconds
        codes = documented_codes((ROOT / "docs/errors.md").read_text(encoding="utf-8"))
        contract = Contract(order.document, codes, order.secrets)
        add_checks(contract)
        schemathesis.hooks.unregister_all()
        schemathesis.hook(self._signing())

    def run(self) -> Tally:
        total = self.order.requests
        self._phase(["coverage"], until=round(total * COVERAGE_SHARE))
        self._phase(["stateful"], until=round(total * (COVERAGE_SHARE + STATEFUL_SHARE)))
        rounds = 0
        while self.tally.total < total and not self._is_late() and rounds < total:
            rounds += 1
            self._phase(None, until=total, seed=self.order.seed + rounds)
        self.tally.people = self.caller.people
        return self.tally

    def _phase(self, phases: list[str] | None, *, until: int, seed: int | None = None) -> None:
        schema = self._schema(phases, self.order.seed if seed is None else seed)
        engine = from_schema(schema)
        stream = engine.fuzz() if phases is None else engine.execute()
        for event in stream:
            self._note(event)
            if self.tally.total >= until or self._is_late():
                stream.stop()

    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def _schema(self, phases: list[str] | None, seed: int) -> BaseSchema:
        config = schemathesis.Config.from_dict(
            {
                "seed": seed % 2**32,
                "base-url": self.order.url,
                "continue-on-failure": True,
                "request-timeout": 60.0,
                "max-redirects": 0,
                "cache": {"enabled": False},
                "suppress-health-check": ["all"],
                # A curl that shows a fault is to be pasted; the tokens die with the platform.
                "output": {"sanitization": {"enabled": False}},
                "generation": {"database": "none", "no-shrink": True, "max-examples": 1_000_000},
                "checks": {
                    **{name: {"enabled": True, **options} for name, options in ON.items()},
                    **{name: {"enabled": False} for name in OFF},
                },
                "phases": {
                    name: {"enabled": phases is None or name in phases}
                    for name in ("examples", "coverage", "fuzzing", "stateful")
                },
            }
        )
        schema: BaseSchema = schemathesis.openapi.from_dict(
            json.loads(json.dumps(self.order.document)), config=config
        )
        if self.order.only:
            schema = schema.include(path=list(self.order.only))
        lay_seeds(schema, self.order.seeds)
        self._sign(schema)
        schema.hook(self._counting())
        return schema

    def _sign(self, schema: BaseSchema) -> None:
        if self.order.role == ANONYMOUS:
            return
        name, mark = self.caller.mark

        @schema.auth(refresh_interval=None)
        class _Credential:
            def get(self, _case: AnyCase, _context: object) -> str:
                return mark

            def set(self, case: AnyCase, data: str, _context: object) -> None:
                case.headers[name] = data

    def _signing(self) -> Callable[[HookContext, AnyCase, dict[str, Any]], None]:
        def before_call(_context: HookContext, case: AnyCase, _kwargs: dict[str, Any]) -> None:
            self.caller.sign(case.headers)

        return before_call

    def _counting(self) -> Callable[[HookContext, AnyCase, Response], None]:
        def after_call(_context: HookContext, case: AnyCase, response: Response) -> None:
            tally, label = self.tally, case.operation.label
            tally.requests[self.order.role] += 1
            tally.statuses[response.status_code] += 1
            tally.operations[label] += 1
            tally.reached[label] += 200 <= response.status_code < 400
            tally.slowest = max(tally.slowest, response.elapsed)
            limit = self.order.slow_seconds
            tally.slow += limit is not None and response.elapsed > limit
            if response.status_code == 401 and any(code in response.content for code in _DEAD):
                self.caller.refused(
                    {name: str(value) for name, value in response.request.headers.items()}
                )
            self.progress(1)

        return after_call

    def _note(self, event: events.EngineEvent) -> None:
        match event:
            case events.ScenarioFinished() | events.FuzzScenarioFinished():
                for fault in self._faults(event.recorder):
                    self.tally.add(fault)
            case events.NonFatalError():
                self.tally.errors[f"{event.label}: {event.info.title} {event.info.message}"] += 1
            case events.FatalError():
                raise event.exception
            case _:
                pass

    def _faults(self, recorder: ScenarioRecorder) -> Iterable[Fault]:
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.status is not Status.FAILURE or check.failure_info is None:
                    continue
                found = check.failure_info
                response = recorder.interactions[found.failure.case_id or case_id].response
                message = f"{found.failure.title}: {found.failure.message}"
                told = "" if response is None else response.content[:300].decode("utf-8", "replace")
                yield Fault(
                    check=check.name,
                    operation=recorder.cases[case_id].value.operation.label,
                    status=0 if response is None else response.status_code,
                    message=f"{message}\n{told}",
                    role=self.order.role,
                    curl=found.code_sample,
                )


_DEAD: Final = tuple(f'"{code}"'.encode() for code in DEAD)
