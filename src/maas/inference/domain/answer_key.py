"""Which calls are the same call, so that one answer will do, and which answers may be kept.

Two calls are the same if tenant, deployment with its revision and targets, kind, and the request
are. The order of what stands inside a field tells models something (the properties of a schema,
say), so only the fields themselves are sorted.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeGuard

from maas.inference.domain.call import Ask
from maas.inference.domain.route import Route, RouteTarget
from maas.inference.public import CallKind
from maas.shared.domain.ids import TenantId

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Answers above this are not kept."""

_LAYOUT: Final = 1
_UNTELLING: Final = frozenset({"stream", "stream_options", "user"})
"""Fields that change nothing about the answer: how it is sent, and on whose behalf."""

_WHOLE: Final = frozenset({"stop", "tool_calls", "function_call"})
"""How an answer ends that has all the model had to say.

One that was cut may owe that to what was left of the first caller's budget.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """Names the answer that calls like this one get, in one tenant."""

    tenant_id: TenantId
    digest: bytes


def answer_key(tenant_id: TenantId, route: Route, ask: Ask) -> AnswerKey | None:
    """Name the answer; `None` for streams, and where the deployment keeps none.

    The tenant is the caller's, whoever the deployment belongs to.
    """
    if route.cache_for is None or ask.is_stream:
        return None
    identity = [
        _LAYOUT,
        str(tenant_id),
        str(route.deployment_id),
        route.revision,
        [_spell(target) for target in route.targets],
        ask.kind,
        {name: ask.body[name] for name in sorted(ask.body) if name not in _UNTELLING},
    ]
    # The escapes keep what is no text, a lone surrogate, from breaking the encoding.
    text = json.dumps(identity, ensure_ascii=True, separators=(",", ":"))
    return AnswerKey(tenant_id=tenant_id, digest=hashlib.sha256(text.encode()).digest())


def _spell(target: RouteTarget) -> list[str]:
    """Tell one target from what it was before: an alias moves without the deployment's doing."""
    origin = target.origin
    told: Iterable[object] = (
        target.id,
        target.endpoint.model,
        origin.provider_id,
        origin.provider_model_id,
        origin.version_id,
        origin.digest,
    )
    return [str(each) for each in told]


def may_keep(kind: CallKind, body: bytes) -> bool:
    """Tell whether others may get this plain answer too: it is whole, of fair size, no error."""
    if len(body) > MAX_ANSWER_BYTES:
        return False
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(answer, dict) or answer.get("error") is not None:
        return False
    if kind == "embeddings":
        return _is_filled(answer.get("data"))
    choices = answer.get("choices")
    return _is_filled(choices) and all(
        isinstance(each, dict) and each.get("finish_reason") in _WHOLE for each in choices
    )


def _is_filled(items: object) -> TypeGuard[list[object]]:
    return isinstance(items, list) and bool(items)
