"""Which calls get the same answer, and which answers others may get."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from maas.inference.domain.answer_key import MAX_ANSWER_BYTES, answer_key, may_keep
from maas.inference.domain.call import Ask
from maas.inference.domain.route import Origin, Route
from maas.inference.public import CallKind, DeploymentId, TargetId
from maas.model.public import VersionId
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId
from tests.factories.calls import HELLO, make_ask, make_route, make_target

ROUTE: Final = make_route(cache_for=timedelta(minutes=1))
OTHER: Final = UUID(int=0x07)

Change = Callable[[TenantId, Route, Ask], tuple[TenantId, Route, Ask]]


def with_targets(route: Route, target: Any) -> Route:
    return replace(route, targets=(target,))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _, route, ask: (TenantId(OTHER), route, ask), id="tenant"),
        pytest.param(
            lambda tenant, route, ask: (
                tenant,
                replace(route, deployment_id=DeploymentId(OTHER)),
                ask,
            ),
            id="deployment",
        ),
        pytest.param(
            lambda tenant, route, ask: (tenant, replace(route, revision=2), ask), id="revision"
        ),
        pytest.param(
            lambda tenant, route, ask: (tenant, route, replace(ask, kind="completions")), id="kind"
        ),
        pytest.param(
            lambda tenant, route, ask: (
                tenant,
                with_targets(route, make_target(TargetId(OTHER))),
                ask,
            ),
            id="target",
        ),
        pytest.param(
            lambda tenant, route, ask: (tenant, with_targets(route, make_target(model="b")), ask),
            id="model",
        ),
        pytest.param(
            lambda tenant, route, ask: (
                tenant,
                with_targets(route, make_target(origin=Origin(version_id=VersionId(OTHER)))),
                ask,
            ),
            id="version",
        ),
    ],
)
def test_no_answer_crosses(change: Change) -> None:
    before = (DEFAULT_TENANT_ID, ROUTE, make_ask())

    ours, theirs = answer_key(*before), answer_key(*change(*before))

    assert ours is not None
    assert theirs is not None
    assert ours.digest != theirs.digest


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": 0.0},
        {"seed": 1},
        {"max_tokens": 5},
        {"n": 1},
        {"x_unknown": None},
        {"messages": [{"role": "user", "content": "Hello "}]},
        {"messages": [{"role": "user", "content": "hello"}]},
        {"messages": [{"content": "Hello", "role": "user"}]},
    ],
)
def test_another_request_is_another_call(change: dict[str, object]) -> None:
    ours = answer_key(DEFAULT_TENANT_ID, ROUTE, make_ask())

    assert answer_key(DEFAULT_TENANT_ID, ROUTE, make_ask({**HELLO, **change})) != ours


@pytest.mark.parametrize("change", [{"stream": False}, {"user": "ada"}, {"stream_options": None}])
def test_what_tells_nothing_of_the_answer_changes_nothing(change: dict[str, object]) -> None:
    ours = answer_key(DEFAULT_TENANT_ID, ROUTE, make_ask())

    assert ours is not None
    assert answer_key(DEFAULT_TENANT_ID, ROUTE, make_ask({**change, **HELLO})) == ours


def test_the_order_of_fields_is_no_difference() -> None:
    reversed_fields = {name: HELLO[name] for name in reversed(list(HELLO))}

    assert answer_key(DEFAULT_TENANT_ID, ROUTE, make_ask(reversed_fields)) == answer_key(
        DEFAULT_TENANT_ID, ROUTE, make_ask()
    )


def test_a_stream_and_a_deployment_without_cache_have_none() -> None:
    assert answer_key(DEFAULT_TENANT_ID, ROUTE, make_ask(is_stream=True)) is None
    assert answer_key(DEFAULT_TENANT_ID, make_route(), make_ask()) is None


def chat(*reasons: str | None) -> dict[str, object]:
    return {"choices": [{"finish_reason": reason} for reason in reasons]}


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("chat", chat("stop"), True),
        ("chat", chat("tool_calls", "stop"), True),
        ("completions", chat("stop"), True),
        ("chat", chat("length"), False),
        ("chat", chat("stop", "length"), False),
        ("chat", chat("content_filter"), False),
        ("chat", chat(None), False),
        ("chat", chat(), False),
        ("chat", {"choices": ["stop"]}, False),
        ("chat", {"error": {"message": "no"}, **chat("stop")}, False),
        ("chat", {"error": None, **chat("stop")}, True),
        ("chat", ["stop"], False),
        ("embeddings", {"data": [{"embedding": [0.5]}]}, True),
        ("embeddings", {"data": []}, False),
        ("embeddings", {}, False),
    ],
)
def test_only_whole_answers_are_for_others(
    kind: CallKind, answer: object, *, expected: bool
) -> None:
    assert may_keep(kind, json.dumps(answer).encode()) is expected


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[" * 100_000])
def test_what_is_no_answer_is_not_kept(body: bytes) -> None:
    assert not may_keep("chat", body)


def test_what_is_large_is_not_kept() -> None:
    body = json.dumps({**chat("stop"), "padding": "x" * MAX_ANSWER_BYTES}).encode()

    assert not may_keep("chat", body)
