"""What came of asking a supplier: one of a few outcomes, each with words for who can mend it.

Answers are judged and never quoted: suppliers repeat parts of the key in theirs.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from typing_extensions import override

from maas.model.domain.provider import SupplierKey
from maas.model.domain.provider_model import MAX_TOKENS
from maas.model.domain.provider_types import ProviderType
from maas.model.public import Capability, CheckOutcome, ProviderModelId
from maas.shared.domain.errors import RuleViolatedError, TooManyRequestsError

MAX_LISTED: Final = 5_000
"""Of one supplier; the longest lists have some hundreds."""

MAX_VALUES: Final = 50_000
"""In one answer, roughly. A megabyte of empty lists would take 75 ms to parse, and a thread would
not help: the parser lets no other run. The longest lists have some ten thousand.
"""

MAX_TITLE_CHARS: Final = 200

TESTS_AT_ONCE: Final = 4
"""Of one tenant, in one process: each holds a connection to somebody who may take his time."""

_NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")
_HOST: Final = re.compile(r"[a-z0-9.:_\[\]-]{1,253}")
_LENGTHS: Final = ("context_length", "context_window", "max_model_len")
_ASKED: Final = "Hi"
_RETRY_AFTER: Final = timedelta(seconds=5)

REDIRECTS: Final = range(300, 400)
SUCCESSES: Final = range(200, 300)
_BAD_CALLS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_REFUSALS: Final[Mapping[int, CheckOutcome]] = {
    HTTPStatus.UNAUTHORIZED: "credential-refused",
    HTTPStatus.PAYMENT_REQUIRED: "credit-used-up",
    HTTPStatus.FORBIDDEN: "not-permitted",
    HTTPStatus.NOT_FOUND: "address-wrong",
    HTTPStatus.METHOD_NOT_ALLOWED: "address-wrong",
    HTTPStatus.REQUEST_TIMEOUT: "timed-out",
    HTTPStatus.GONE: "address-wrong",
    HTTPStatus.TOO_MANY_REQUESTS: "rate-limited",
}
_NO_CREDIT: Final = frozenset({"insufficient_quota", "billing_error"})
_NO_MODEL: Final = frozenset({"model_not_found", "not_found_error"})


class ProviderUnderTestError(TooManyRequestsError):
    code = "provider-under-test"
    title = "The supplier is being asked already"

    def __init__(self) -> None:
        detail = f"A supplier has one test or discovery at a time, a tenant {TESTS_AT_ONCE}."
        super().__init__(detail, retry_after=_RETRY_AFTER)


class DiscoveryFailedError(RuleViolatedError):
    """`outcome` is that of a connection test."""

    code = "discovery-failed"
    title = "The supplier's models cannot be listed"

    def __init__(self, finding: "Finding") -> None:
        super().__init__(f"{finding.message} {finding.advice}")
        self.outcome = finding.outcome

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        return {"outcome": self.outcome}


# Without slots, for what is read once is kept beside the fields.
@dataclass(frozen=True, kw_only=True)
class SupplierAnswer:
    """What a supplier said; `redirect_host` is where a redirect points to."""

    status: int
    body: bytes = field(repr=False)
    redirect_host: str | None = None

    @cached_property
    def told(self) -> Any:
        """Its JSON; `None` where it is none, too much, or nested too deep to be read."""
        if sum(self.body.count(each) for each in (b"[", b"{", b",")) > MAX_VALUES:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class SupplierCallError(Exception):
    """The call did not come to an answer; `detail` is of the connection, never of an answer."""

    def __init__(self, outcome: CheckOutcome, detail: str | None = None) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model as the supplier lists it; `model_id` is that of the model added here."""

    name: str
    title: str | None = None
    context_length: int | None = None
    model_id: ProviderModelId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check came to; `status` is of the answer that decided it, where there was one."""

    outcome: CheckOutcome
    detail: str | None = None
    status: int | None = None
    duration_ms: int = 0
    models: Sequence[ListedModel] | None = None

    @property
    def message(self) -> str:
        return self.detail or WORDS[self.outcome][0]

    @property
    def advice(self) -> str:
        return WORDS[self.outcome][1]

    @property
    def models_seen(self) -> int | None:
        return None if self.models is None else len(self.models)


WORDS: Final[Mapping[CheckOutcome, tuple[str, str]]] = {
    "ok": ("The supplier answers as it should.", "There is nothing to do."),
    "address-wrong": (
        "What answers at the base URL is not the API of this type.",
        "Compare the base URL with the type's example: mostly /v1 is missing, or there twice.",
    ),
    "answer-odd": (
        "The answer broke off, or is none that this API gives.",
        "See whether a proxy or another program answers at the base URL, then try again.",
    ),
    "answer-too-large": (
        "The answer is larger than any list of models.",
        "See whether the base URL is that of the API.",
    ),
    "certificate-refused": (
        "The host's certificate is refused.",
        "Have it renewed; a company's own authority goes into MAAS_OUTGOING__CA_FILE.",
    ),
    "connection-refused": (
        "No connection to the host.",
        "See whether it is up and listens on this port, and whether a firewall is between.",
    ),
    "credential-missing": ("There is no key, and the supplier wants one.", "Set the credential."),
    "credential-refused": (
        "The supplier refuses the key.",
        "Make a key for this supplier and region, and set it as the credential.",
    ),
    "credential-unreadable": (
        "The key is kept, but cannot be read back.",
        "Set the credential again; the operator sees why it does not open.",
    ),
    "credit-used-up": (
        "The account at the supplier has no credit left.",
        "Pay, or raise the limit, at the supplier's.",
    ),
    "model-unknown": (
        "The supplier does not know the model, or does not take this kind of call for it.",
        "Compare the name and the capabilities with the supplier's own list.",
    ),
    "name-unresolved": (
        "The host's name cannot be resolved.",
        "See whether it is spelled right, and known to this server's name server.",
    ),
    "no-public-address": (
        "The host's name has no public address.",
        "See whether it is spelled right. What lies in a private network the operator connects.",
    ),
    "not-permitted": (
        "The supplier knows the key, and permits it too little.",
        "See at the supplier's what the key, its project and this region may use.",
    ),
    "platform-busy": (
        "Too many names are being looked up at the moment, so nothing was asked.",
        "Try again in a minute.",
    ),
    "rate-limited": (
        "The supplier says that it is asked too often.",
        "Wait a minute, or have the limit raised at the supplier's.",
    ),
    "redirected": (
        "The supplier points elsewhere, and redirects are not followed.",
        "Set the base URL that it points to, if that host is to have the key.",
    ),
    "supplier-failed": (
        "The supplier says that it failed.",
        "Wait and try again; its status page may tell more.",
    ),
    "target-refused": (
        "The address may not be called.",
        "The operator's list no longer has it: see MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS.",
    ),
    "timed-out": (
        "The supplier did not answer in time.",
        "See whether it is up, and whether a firewall is between; a model may still be loading.",
    ),
    "tls-failed": (
        "TLS failed.",
        "See whether the host speaks https on this port.",
    ),
}
"""What each outcome says, and what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call that tells whether a model answers; it costs a token or so."""

    path: str
    body: Mapping[str, object]


def ask_for_model(kind: ProviderType, model: str, capabilities: Collection[Capability]) -> Question:
    """Make the smallest call of a model; of one that is not known here a chat is asked for."""
    said = [{"role": "user", "content": _ASKED}]
    if kind.protocol == "anthropic":
        body = {"model": model, "max_tokens": 1, "messages": said}
        return Question(path="/v1/messages", body=body)
    if not capabilities or "chat" in capabilities:
        body = {"model": model, "max_tokens": 1, "messages": said}
        return Question(path="/chat/completions", body=body)
    if "completions" in capabilities:
        body = {"model": model, "max_tokens": 1, "prompt": _ASKED}
        return Question(path="/completions", body=body)
    return Question(path="/embeddings", body={"model": model, "input": _ASKED})


def judge(answer: SupplierAnswer, *, key: SupplierKey | None) -> Finding | None:
    """Judge an answer by its head, and why it refuses; `None` where it is a success."""
    status = answer.status
    if status in SUCCESSES:
        return None
    if status in REDIRECTS:
        return _redirected(answer, key)
    if status == HTTPStatus.UNAUTHORIZED and key is None:
        return Finding(outcome="credential-missing", status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS and _tells_of(answer, _NO_CREDIT):
        return Finding(outcome="credit-used-up", status=status)
    other: CheckOutcome = (
        "supplier-failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "answer-odd"
    )
    return Finding(outcome=_REFUSALS.get(status, other), status=status)


def judge_list(answer: SupplierAnswer, *, key: SupplierKey | None) -> Finding:
    """Judge the answer to a call for the list of models, and read the list."""
    refused = judge(answer, key=key)
    if refused is not None:
        return refused
    models = _read_models(answer.told, key)
    if models is None:
        return Finding(outcome="address-wrong", status=answer.status)
    return Finding(outcome="ok", status=answer.status, models=models)


def judge_model(answer: SupplierAnswer, *, key: SupplierKey | None, is_listed: bool) -> Finding:
    """Judge the answer to a call of a model; `is_listed`: the list of models was there."""
    status = answer.status
    if status == HTTPStatus.BAD_REQUEST and _refuses_a_limit(answer):
        # Only who has the model at hand knows that it takes no such limit.
        return Finding(outcome="ok", status=status)
    is_sure = is_listed or _tells_of(answer, _NO_MODEL)
    if status in _BAD_CALLS or (status == HTTPStatus.NOT_FOUND and is_sure):
        return Finding(outcome="model-unknown", status=status)
    refused = judge(answer, key=key)
    if refused is not None:
        return refused
    is_answer = isinstance(answer.told, dict)
    return Finding(outcome="ok" if is_answer else "address-wrong", status=status)


def _redirected(answer: SupplierAnswer, key: SupplierKey | None) -> Finding:
    host = (answer.redirect_host or "").lower()
    is_named = _HOST.fullmatch(host) is not None
    if not is_named or (key is not None and key.plain.lower() in host):
        return Finding(outcome="redirected", status=answer.status)
    detail = f"The supplier points to {host}, and redirects are not followed."
    return Finding(outcome="redirected", status=answer.status, detail=detail)


def _read_models(told: Any, key: SupplierKey | None) -> list[ListedModel] | None:
    """Read a list of models; what could be no name, or holds the key, is left out."""
    if not isinstance(told, dict) or "data" not in told:
        return None
    # Ollama says null where it has none.
    rows = told["data"] or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    found: dict[str, ListedModel] = {}
    for row in rows[:MAX_LISTED]:
        name = row.get("id")
        if isinstance(name, str) and _NAME.fullmatch(name) and not _holds(name, key):
            found.setdefault(name, _model(name, row, key))
    return None if rows and not found else list(found.values())


def _model(name: str, row: Mapping[str, Any], key: SupplierKey | None) -> ListedModel:
    title = next((row[each] for each in ("display_name", "name") if row.get(each)), None)
    is_fit = (
        isinstance(title, str)
        and len(title) <= MAX_TITLE_CHARS
        and title.isprintable()
        and not _holds(title, key)
    )
    lengths = (row.get(each) for each in _LENGTHS)
    return ListedModel(
        name=name,
        title=title if is_fit and title != name else None,
        context_length=next((each for each in lengths if _is_length(each)), None),
    )


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_TOKENS


def _holds(text: str, key: SupplierKey | None) -> bool:
    return key is not None and key.plain in text


def _tells_of(answer: SupplierAnswer, codes: Collection[str]) -> bool:
    error = _error(answer)
    told = [error.get(each) for each in ("code", "type")]
    return any(isinstance(each, str) and each in codes for each in told)


def _refuses_a_limit(answer: SupplierAnswer) -> bool:
    error = _error(answer)
    return error.get("param") in ("max_tokens", "max_output_tokens")


def _error(answer: SupplierAnswer) -> Mapping[str, Any]:
    told = answer.told
    error = told.get("error") if isinstance(told, dict) else None
    return error if isinstance(error, dict) else {}
