"""The routes under `/v1`, in OpenAI's wire format."""

import asyncio
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from maas.audit.public import audited
from maas.inference.application.bills import TooManyCallsError
from maas.inference.application.calls import Caller, CallService
from maas.inference.application.ports import NamedModel
from maas.inference.application.reading import RefusedRequestError
from maas.inference.application.replays import AlreadyProcessedError, ReplaysUnavailableError
from maas.inference.domain.asking import InvalidCallError, read_ask, read_long_ask
from maas.inference.domain.call import Ask
from maas.inference.domain.charging import CallTooLargeError
from maas.inference.domain.failures import (
    BrokenAnswerError,
    NoTargetError,
    QueueDeadlineError,
    QueueFullError,
    ServerStoppedError,
    UnknownModelError,
    UpstreamFailedError,
    UpstreamRateLimitedError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from maas.inference.domain.limits import (
    BodyOverLimitError,
    ChoicesOverLimitError,
    ContextLengthExceededError,
    OutputOverLimitError,
)
from maas.inference.domain.wire import NotTakenError
from maas.inference.interface.leaving import LeaveWatch, Presence
from maas.inference.interface.openai_docs import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MODEL,
    MODELS,
)
from maas.inference.interface.openai_route import BODY_KEY, LONG_BODY_BYTES, OpenAIRoute
from maas.inference.interface.openai_stream import EventStreamResponse
from maas.inference.public import CallKind
from maas.shared.domain.call import current_call
from maas.shared.domain.errors import (
    MaasError,
    PayloadTooLargeError,
    SlowRequestError,
    UnsupportedMediaError,
    may_refuse,
)
from maas.shared.domain.idempotency import IdempotencyKeyReusedError
from maas.shared.interface.idempotency import InvalidIdempotencyKeyError
from maas.shared.interface.security import known_caller, requires
from maas.shared.interface.strict_json import (
    InvalidJsonError,
    InvalidTextError,
    NestedTooDeepError,
)
from maas.shared.interface.traffic import BODY_KEY as INCOMING_KEY
from maas.shared.interface.traffic import IncomingBody
from maas.user.public import (
    BudgetCurrencyError,
    BudgetExceededError,
    QuotaExceededError,
    QuotaUnavailableError,
)

router = APIRouter(tags=["inference"], route_class=OpenAIRoute)

CACHE_HEADER: Final = "x-maas-cache"
DEPLOYMENT_HEADER: Final = "x-maas-deployment"

_REFUSALS: Final[tuple[type[MaasError], ...]] = (
    AlreadyProcessedError,
    BodyOverLimitError,
    BrokenAnswerError,
    BudgetCurrencyError,
    BudgetExceededError,
    ChoicesOverLimitError,
    CallTooLargeError,
    ContextLengthExceededError,
    IdempotencyKeyReusedError,
    InvalidCallError,
    InvalidIdempotencyKeyError,
    InvalidJsonError,
    InvalidTextError,
    NestedTooDeepError,
    NoTargetError,
    NotTakenError,
    OutputOverLimitError,
    PayloadTooLargeError,
    QueueDeadlineError,
    QueueFullError,
    QuotaExceededError,
    QuotaUnavailableError,
    RefusedRequestError,
    ReplaysUnavailableError,
    ServerStoppedError,
    SlowRequestError,
    TooManyCallsError,
    UnknownModelError,
    UnsupportedMediaError,
    UpstreamFailedError,
    UpstreamRateLimitedError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)

_MAY_CALL: Final = [requires("inference:call")]


@router.post("/chat/completions", dependencies=_MAY_CALL, response_class=Response, **CHAT)
@may_refuse(*_REFUSALS)
@audited("inference.completed")
async def create_chat_completion(request: Request) -> Response:
    return await _call(request, "chat")


@router.post("/completions", dependencies=_MAY_CALL, response_class=Response, **COMPLETIONS)
@may_refuse(*_REFUSALS)
@audited("inference.completed")
async def create_completion(request: Request) -> Response:
    return await _call(request, "completions")


@router.post("/embeddings", dependencies=_MAY_CALL, response_class=Response, **EMBEDDINGS)
@may_refuse(*_REFUSALS)
@audited("inference.completed")
async def create_embeddings(request: Request) -> Response:
    return await _call(request, "embeddings")


@router.get("/models", dependencies=_MAY_CALL, response_class=Response, **MODELS)
async def list_callable_models(request: Request) -> Response:
    names = await _calls_of(request.scope).list_names(known_caller())
    return _json({"object": "list", "data": [_spell(each) for each in names]})


# The route hands over the request alone.
@router.get("/models/{name:path}", dependencies=_MAY_CALL, response_class=Response, **MODEL)  # noqa: FAST003
@may_refuse(UnknownModelError)
async def get_callable_model(request: Request) -> Response:
    name: str = request.path_params["name"]
    return _json(_spell(await _calls_of(request.scope).get_name(known_caller(), name)))


async def _call(request: Request, kind: CallKind) -> Response:
    scope = request.scope
    parsed, body, replay = scope.pop(BODY_KEY)
    if len(body) > LONG_BODY_BYTES:
        ask = await asyncio.to_thread(read_long_ask, kind, parsed)
    else:
        ask = read_ask(kind, parsed)
    incoming: IncomingBody = scope[INCOMING_KEY]
    watch = LeaveWatch(request.receive)

    def note_sending(*, is_under_way: bool) -> None:
        if ask.is_stream:
            return
        # A plain call that was sent goes on without its caller: only its end tells what it cost.
        if is_under_way:
            watch.stop()
        else:
            watch.resume()

    caller = Caller(
        principal=known_caller(),
        request_id=current_call().request_id,
        body=body,
        replay=replay,
        is_there=watch.presence.is_there,
        on_sending=note_sending,
    )
    try:
        with incoming.waiting_elsewhere():
            return await _answer(_calls_of(scope), ask, caller, watch.presence)
    except asyncio.CancelledError:
        if watch.is_why_cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        watch.stop()


async def _answer(calls: CallService, ask: Ask, caller: Caller, presence: Presence) -> Response:
    if not ask.is_stream:
        answer = await calls.answer(ask, caller)
        headers = {DEPLOYMENT_HEADER: str(answer.deployment_id)}
        if answer.is_hit is not None:
            headers[CACHE_HEADER] = "hit" if answer.is_hit else "miss"
        return Response(answer.body, media_type="application/json", headers=headers)
    streamed = await calls.stream(ask, caller)
    headers = {DEPLOYMENT_HEADER: str(streamed.deployment_id)}
    return EventStreamResponse(streamed, presence, headers=headers)


def _calls_of(scope: Scope) -> CallService:
    return cast("CallService", scope["state"]["calls"])


def _spell(model: NamedModel) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": model.owner,
    }


def _json(value: dict[str, Any]) -> Response:
    return Response(to_json(value), status_code=HTTPStatus.OK, media_type="application/json")
