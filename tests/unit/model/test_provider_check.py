"""Answers of suppliers are judged by what they mean, and hostile ones as well."""

import json
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import get_args

import pytest

from maas.model.application import provider_checks
from maas.model.application.provider_checks import SupplierCheck
from maas.model.application.provider_ports import SupplierAccount
from maas.model.domain import provider_check
from maas.model.domain.provider import SupplierKey
from maas.model.domain.provider_check import (
    MAX_LISTED,
    MAX_VALUES,
    WORDS,
    Finding,
    SupplierAnswer,
    ask_for_model,
    judge,
    judge_list,
    judge_model,
)
from maas.model.domain.provider_health import UNKNOWN
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.public import Capability, CheckOutcome, ProviderId
from maas.shared.domain.ids import TenantId, new_id

KEY = SupplierKey("sk-canary-0123456789")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def says(status: int, body: object = b"", *, redirect_host: str | None = None) -> SupplierAnswer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SupplierAnswer(status=status, body=content, redirect_host=redirect_host)


def fails(code: str | None = None, *, param: str | None = None) -> dict[str, object]:
    return {"error": {"message": KEY.plain, "type": "x", "code": code, "param": param}}


def listed(answer: object) -> Finding:
    return judge_list(says(200, answer), key=KEY)


def test_each_outcome_has_words_of_its_own() -> None:
    assert set(WORDS) == set(get_args(CheckOutcome))
    assert len({message for message, _ in WORDS.values()}) == len(WORDS)
    assert len({advice for _, advice in WORDS.values()}) == len(WORDS)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (302, "redirected"),
        (304, "redirected"),
        (400, "answer-odd"),
        (401, "credential-refused"),
        (402, "credit-used-up"),
        (403, "not-permitted"),
        (404, "address-wrong"),
        (418, "answer-odd"),
        (429, "rate-limited"),
        (503, "supplier-failed"),
        (999, "supplier-failed"),
    ],
)
def test_a_refusal_is_judged_by_its_status(status: int, outcome: str) -> None:
    finding = judge(says(status, fails()), key=KEY)

    assert finding is not None
    assert (finding.outcome, finding.status) == (outcome, status)


def test_without_a_key_a_401_asks_for_one() -> None:
    finding = judge(says(401), key=None)

    assert finding is not None
    assert finding.outcome == "credential-missing"


@pytest.mark.parametrize(
    "host", [None, KEY.plain, f"{KEY.plain}.evil.test", "<script>", "a" * 300, "a b"]
)
def test_a_redirect_names_no_host_that_could_be_anything_else(host: str | None) -> None:
    finding = judge(says(307, redirect_host=host), key=KEY)

    assert finding is not None
    assert finding.message == WORDS["redirected"][0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 200_000,
        b"\xff\xfe",
        b"<html>",
        [],
        {},
        {"data": 1},
        {"data": ["gpt"]},
        {"data": [{"name": "no id"}]},
        {"models": [{"id": "x"}]},
    ],
    ids=range(10),
)
def test_what_is_no_list_of_models_is_another_api(body: object) -> None:
    assert listed(body).outcome == "address-wrong"


def test_a_list_may_be_empty() -> None:
    assert listed({"object": "list", "data": []}).models == []
    assert listed({"object": "list", "data": None}).models == []


def test_of_a_list_only_what_can_be_a_model_is_taken() -> None:
    rows = [
        {"id": "b", "display_name": "B", "context_length": 8_192},
        {"id": "b", "display_name": "again"},
        {"id": "a", "name": f"A {KEY.plain}", "max_model_len": True, "context_window": 4_096},
        {"id": KEY.plain},
        {"id": "two words"},
        {"id": "x" * 201},
        {"id": 7},
        {"id": "c", "name": "line\nbreak", "context_length": -1},
    ]
    models = listed({"data": rows}).models or []

    assert [(each.name, each.title, each.context_length) for each in models] == [
        ("b", "B", 8_192),
        ("a", None, 4_096),
        ("c", None, None),
    ]


def test_a_list_without_end_is_cut() -> None:
    found = listed({"data": [{"id": f"m{number}"} for number in range(MAX_LISTED + 1)]})

    assert found.models_seen == MAX_LISTED


@pytest.mark.parametrize(
    ("status", "body", "is_listed", "outcome"),
    [
        (200, {"choices": []}, True, "ok"),
        (200, b"<html>", True, "address-wrong"),
        (400, fails("unsupported_parameter", param="max_tokens"), True, "ok"),
        (400, fails(), True, "model-unknown"),
        (404, fails(), True, "model-unknown"),
        (404, fails(), False, "address-wrong"),
        (404, fails("model_not_found"), False, "model-unknown"),
        (404, b"<html>", False, "address-wrong"),
        (429, fails("insufficient_quota"), True, "credit-used-up"),
        (401, fails(), True, "credential-refused"),
    ],
)
def test_a_call_of_a_model_tells_whether_it_is_there(
    status: int, body: object, *, is_listed: bool, outcome: str
) -> None:
    assert judge_model(says(status, body), key=KEY, is_listed=is_listed).outcome == outcome


@pytest.mark.parametrize("status", [200, 400, 404, 429])
def test_an_answer_is_parsed_once(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    parsed: list[bytes] = []

    def parse(body: bytes) -> object:
        parsed.append(body)
        return json.loads(body)

    monkeypatch.setattr(provider_check, "json", SimpleNamespace(loads=parse))
    judge_model(says(status, fails()), key=KEY, is_listed=False)

    assert len(parsed) == 1


@pytest.mark.parametrize("piece", [b"[],", b'{"a":{}},', b"1,"])
def test_what_would_take_long_to_parse_is_no_list(
    monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    body, parsed = b'{"data":[' + piece * MAX_VALUES + b"{}]}", list[bytes]()
    monkeypatch.setattr(provider_check, "json", SimpleNamespace(loads=parsed.append))

    assert judge_list(says(200, body), key=KEY).outcome == "address-wrong"
    assert parsed == []


def test_a_list_as_long_as_it_may_be_is_read() -> None:
    row = {"display_name": "A", "context_length": 1, "created": 1, "pricing": {"a": 1, "b": 2}}
    found = listed({"data": [{"id": f"m{number}", **row} for number in range(MAX_LISTED)]})

    assert found.models_seen == MAX_LISTED


class Answering:
    """Suppliers that all give this answer."""

    def __init__(self, answer: SupplierAnswer) -> None:
        self.answer = answer

    async def send(self, *_: object, **__: object) -> SupplierAnswer:
        return self.answer


@pytest.mark.parametrize(("models", "is_apart"), [(1, False), (MAX_LISTED, True)])
async def test_others_go_on_while_a_long_list_is_read(
    monkeypatch: pytest.MonkeyPatch, models: int, *, is_apart: bool
) -> None:
    account = SupplierAccount(
        id=ProviderId(new_id()),
        tenant_id=TenantId(new_id()),
        type="openai",
        base_url="https://supplier.test/v1",
        reach="public",
        api_version=None,
        status="active",
        key=KEY,
    )
    readers: list[threading.Thread] = []

    def read(answer: SupplierAnswer, *, key: SupplierKey | None) -> Finding:
        readers.append(threading.current_thread())
        return judge_list(answer, key=key)

    monkeypatch.setattr(provider_checks, "judge_list", read)
    answer = says(200, {"data": [{"id": f"model-{number}"} for number in range(models)]})
    finding = await SupplierCheck(calls=Answering(answer)).list_models(account)

    assert finding.models_seen == models
    assert (readers[0] is not threading.current_thread()) is is_apart


def test_the_smallest_call_is_of_the_kind_the_model_takes() -> None:
    openai, anthropic = PROVIDER_TYPES["openai"], PROVIDER_TYPES["anthropic"]
    asked: list[list[Capability]] = [[], ["embeddings", "chat"], ["completions"], ["embeddings"]]
    paths = [ask_for_model(openai, "m", each).path for each in asked]

    assert paths == ["/chat/completions", "/chat/completions", "/completions", "/embeddings"]
    assert ask_for_model(anthropic, "m", asked[3]).path == "/v1/messages"
    assert ask_for_model(openai, "m", ()).body["max_tokens"] == 1


def test_nothing_of_an_answer_shows_in_its_repr() -> None:
    assert KEY.plain not in repr(says(401, fails()))


class TestHealth:
    def after(self, *outcomes: CheckOutcome) -> list[str]:
        health = UNKNOWN
        seen: list[str] = []
        for number, outcome in enumerate(outcomes):
            health = health.after(outcome, at=NOON + timedelta(minutes=number), duration_ms=1)
            seen.append(health.status)
        return seen

    def test_it_takes_three_failures_in_a_row_and_one_success(self) -> None:
        assert self.after("ok", "timed-out", "timed-out", "ok", "timed-out") == ["healthy"] * 5
        assert self.after("timed-out", "supplier-failed", "redirected", "ok") == [
            "unknown",
            "unknown",
            "unhealthy",
            "healthy",
        ]

    def test_who_is_asked_too_often_is_no_less_healthy(self) -> None:
        often: list[CheckOutcome] = ["rate-limited"] * 5

        assert self.after("ok", *often) == ["healthy"] * 6
        assert self.after("timed-out", "rate-limited", "timed-out", "timed-out")[-1] == "unhealthy"

    def test_it_tells_since_when(self) -> None:
        first = UNKNOWN.after("ok", at=NOON, duration_ms=1)
        second = first.after("timed-out", at=NOON + timedelta(minutes=1), duration_ms=2)

        assert (second.since, second.checked_at) == (NOON, NOON + timedelta(minutes=1))
        assert (second.outcome, second.failures) == ("timed-out", 1)
