"""What there is to name: for each operation calls that would succeed, laid under generated ones.

Generated ids name nothing, and a fuzz that is only ever answered 404 proves little. A part of a
request that the library made wrong on purpose is left as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from schemathesis import BaseSchema, HookContext
from schemathesis.core.parameters import ParameterLocation

from tests.fuzz.checks import AnyCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One call that would succeed, by the one who may make it."""

    path: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


Seeds = Mapping[str, Sequence[Seed]]
"""By operation, `METHOD /path`."""


def lay_seeds(schema: BaseSchema, seeds: Seeds) -> None:
    """Have the library draw, for about half of all requests, what names something that is there."""

    @schema.hook
    def before_generate_case(
        context: HookContext, strategy: SearchStrategy[AnyCase]
    ) -> SearchStrategy[AnyCase]:
        operation = context.operation
        known = () if operation is None else seeds.get(operation.label, ())
        return _seeded(strategy, known) if known else strategy


@st.composite
def _seeded(draw: st.DrawFn, strategy: SearchStrategy[AnyCase], known: Sequence[Seed]) -> AnyCase:
    case = draw(strategy)
    seed = draw(st.sampled_from(known))
    if seed.path and not _is_wrong(case, ParameterLocation.PATH) and draw(st.booleans()):
        case.path_parameters = {**case.path_parameters, **seed.path}
    if not _is_wrong(case, ParameterLocation.HEADER):
        # Some calls need three or four of them at once.
        are_all_there = draw(st.booleans())
        for name, value in seed.headers.items():
            if are_all_there or draw(st.booleans()):
                case.headers[name] = value
    if seed.body is not None and not _is_wrong(case, ParameterLocation.BODY):
        how = draw(st.sampled_from(("generated", "mixed", "seed")))
        if how == "seed":
            case.body = seed.body
        elif how == "mixed" and isinstance(case.body, dict):
            case.body = {**seed.body, **case.body}
    return case


def _is_wrong(case: AnyCase, location: ParameterLocation) -> bool:
    return case.meta is not None and case.meta.is_negative_at(location)
