"""A share of a fuzz: the library's phases over the whole document, as one role or several."""

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import schemathesis
from schemathesis import BaseSchema, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.core.result import Ok
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.openapi.checks import AllowHeaderMismatch, UnsupportedMethodResponse

from tests.fuzz.checks import ASKING, OFF, ON, AnyCase, Contract, add_checks, documented_codes
from tests.fuzz.people import MARK, MARKED, Caller, Keeper, MakeAdmin
from tests.fuzz.seeds import Seeds, lay_seeds
from tests.fuzz.tally import Fault, Tally

ROOT: Final = Path(__file__).parents[2]
STATEFUL_UNTIL: Final = 0.2
COVERAGE_UNTIL: Final = 0.5
"""Shares of the requests and of the time; the random fuzz has the rest. Coverage asks for each
bound of each field, and each method that there is not."""

COVERAGE_EACH: Final = 100
"""About so many requests an operation; each turn covers others than the next."""

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")

DEAD: Final = {"invalid-token", "invalid-api-key", "superseded-key", "unauthenticated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be asked, and as whom."""

    url: str
    roles: Sequence[str]
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
    """Fuzz until as much was asked as is to be."""
    return _Turn(order, make_admin, progress).run()


class _Turn:
    def __init__(
        self, order: Order, make_admin: MakeAdmin, progress: Callable[[int], None]
    ) -> None:
        self.order = order
        self.progress = progress
        self.tally = Tally()
        self.caller = Caller(order.roles, Keeper(order.url, order.keeper, make_admin))
        self.began = time.monotonic()
        self.rounds = 0
        codes = documented_codes((ROOT / "docs/errors.md").read_text(encoding="utf-8"))
        contract = Contract(order.document, codes, order.secrets)
        add_checks(contract)
        schemathesis.hooks.unregister_all()
        schemathesis.hook(self._signing())

    def run(self) -> Tally:
        total = self.order.requests
        self._phase(["stateful"], share=STATEFUL_UNTIL, names=())
        labels = sorted(self._labels())
        random.Random(self.order.seed).shuffle(labels)  # noqa: S311  nothing secret hangs on it
        count = max(1, int(total * COVERAGE_UNTIL - self.tally.total) // COVERAGE_EACH)
        self._phase(["coverage"], share=COVERAGE_UNTIL, names=labels[:count])
        self._fuzz()
        self.tally.people = self.caller.people
        return self.tally

    def _labels(self) -> Iterator[str]:
        for result in self._schema(None, self.order.seed).get_all_operations():
            if isinstance(result, Ok):
                yield result.ok().label

    def _fuzz(self) -> None:
        """Fuzz with seed after seed: what a platform answers can end a run before its time."""
        while not self._has_done(1.0) and self.rounds < self.order.requests:
            self.rounds += 1
            self._phase(None, share=1.0, names=(), seed=self.order.seed + self.rounds)

    def _phase(
        self,
        phases: list[str] | None,
        *,
        share: float,
        names: Sequence[str],
        seed: int | None = None,
    ) -> None:
        schema = self._schema(phases, self.order.seed if seed is None else seed)
        if names:
            schema = schema.include(name=list(names))
        engine = from_schema(schema)
        stream = engine.fuzz() if phases is None else engine.execute()
        for event in stream:
            self._note(event)
            if self._has_done(share):
                stream.stop()

    def _has_done(self, share: float) -> bool:
        spent = time.monotonic() - self.began
        return (
            self.tally.total >= self.order.requests * share or spent >= self.order.seconds * share
        )

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
                    **{name: {"enabled": False} for name in (OFF if phases else OFF | ASKING)},
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
        schema.hook(filter_failure)
        return schema

    def _sign(self, schema: BaseSchema) -> None:
        @schema.auth(refresh_interval=None)
        class _Credential:
            def get(self, _case: AnyCase, _context: object) -> str:
                return MARK

            def set(self, case: AnyCase, data: str, _context: object) -> None:
                case.headers[MARKED] = data

    def _signing(self) -> Callable[[HookContext, AnyCase, dict[str, Any]], None]:
        def before_call(_context: HookContext, case: AnyCase, _kwargs: dict[str, Any]) -> None:
            self.caller.sign(case.headers)

        return before_call

    def _counting(self) -> Callable[[HookContext, AnyCase, Response], None]:
        def after_call(_context: HookContext, case: AnyCase, response: Response) -> None:
            tally, label = self.tally, case.operation.label
            tally.requests[self.caller.role] += 1
            tally.statuses[response.status_code] += 1
            tally.operations[label] += 1
            tally.reached[label] += 200 <= response.status_code < 400
            tally.slowest = max(tally.slowest, response.elapsed)
            limit = self.order.slow_seconds
            # Up to a thousand rows, each with a password to hash or a commit of its own.
            tally.slow += (
                limit is not None and response.elapsed > limit and not label.endswith("/bulk")
            )
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
                self.tally.errors[f"{event.label}: {_told(event.value)}"] += 1
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
                    role=self.caller.role,
                    curl=found.code_sample,
                )


def _told(error: BaseException) -> str:
    """Tell what was the matter: a group's own words quote the whole scenario."""
    inner = getattr(error, "exceptions", ())
    words = f"{type(error).__name__}: {str(error)[-200:]}"
    return " / ".join([words, *map(_told, inner)])


def filter_failure(
    _context: HookContext, failure: Failure, case: AnyCase, _response: Response
) -> bool:
    """Let a path that another's template takes too answer methods of that other's.

    `GET /users/bulk` asks for the user `bulk`, whom there cannot be: 422 and not 405.
    """
    if not isinstance(failure, UnsupportedMethodResponse | AllowHeaderMismatch):
        return True
    own = str(case.operation.path)
    paths = case.operation.schema.raw_schema["paths"]
    return not any(path != own and _takes(path, own) for path in paths)


def _takes(template: str, path: str) -> bool:
    pattern = re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(template))
    return re.fullmatch(pattern, path) is not None


_DEAD: Final = tuple(f'"{code}"'.encode() for code in DEAD)
