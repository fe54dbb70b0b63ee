"""OpenAI's own client against `/v1`, strict about each answer, in both its forms.

A check raises an `AssertionError`, or what the client raises.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import openai
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from pydantic import BaseModel
from typing_extensions import override

from tests.clients.deploying import Face

SECONDS: Final = 60.0
"""For one answer: a small model on a busy machine takes some of them."""

QUESTION: Final[list[Any]] = [
    {"role": "user", "content": "What is the weather in Paris? Be brief."}
]
WEATHER: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


_LAX: Final[dict[str, Any]] = {"_extra_kwargs": {"_strict_response_validation": False}}
"""For what no server can say strictly enough.

By its types each piece of a streamed completion tells why it ends, and vectors in base64 are lists
of numbers before they are unpacked.
"""


class City(BaseModel):
    """Few enough words that a small model cannot go on for ever."""

    name: Literal["Paris", "Rome"]
    is_capital: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A deployment, and what it is known to give.

    `repeats`: it says the same to the same question. One that `chooses` calls a function or not, as
    it likes, after it was told what a call of it gave.
    """

    name: str
    repeats: bool = True
    chooses: bool = False
    completes: bool = False


class Talk(Protocol):
    """A client of either form."""

    async def chat(self, **body: Any) -> ChatCompletion: ...
    async def chunks(self, **body: Any) -> list[ChatCompletionChunk]: ...
    async def assembled(self, **body: Any) -> ChatCompletionMessage: ...
    async def parse(self, form: type[BaseModel], **body: Any) -> BaseModel | None: ...
    async def complete(self, **body: Any) -> Completion: ...
    async def completed(self, **body: Any) -> list[Completion]: ...
    async def embed(self, **body: Any) -> CreateEmbeddingResponse: ...
    async def models(self) -> list[Model]: ...
    async def model(self, name: str) -> Model: ...


@dataclass(frozen=True, slots=True)
class AsyncTalk(Talk):
    client: AsyncOpenAI

    @override
    async def chat(self, **body: Any) -> ChatCompletion:
        told: ChatCompletion = await self.client.chat.completions.create(**body)
        return told

    @override
    async def chunks(self, **body: Any) -> list[ChatCompletionChunk]:
        stream = await self.client.chat.completions.create(**body, stream=True)
        return [chunk async for chunk in stream]

    @override
    async def assembled(self, **body: Any) -> ChatCompletionMessage:
        async with self.client.chat.completions.stream(**body) as stream:
            return (await stream.get_final_completion()).choices[0].message

    @override
    async def parse(self, form: type[BaseModel], **body: Any) -> BaseModel | None:
        told = await self.client.chat.completions.parse(**body, response_format=form)
        return told.choices[0].message.parsed

    @override
    async def complete(self, **body: Any) -> Completion:
        told: Completion = await self.client.completions.create(**body)
        return told

    @override
    async def completed(self, **body: Any) -> list[Completion]:
        client = self.client.with_options(**_LAX)
        stream = await client.completions.create(**body, stream=True)
        return [chunk async for chunk in stream]

    @override
    async def embed(self, **body: Any) -> CreateEmbeddingResponse:
        client = self.client if "encoding_format" in body else self.client.with_options(**_LAX)
        return await client.embeddings.create(**body)

    @override
    async def models(self) -> list[Model]:
        return [model async for model in self.client.models.list()]

    @override
    async def model(self, name: str) -> Model:
        return await self.client.models.retrieve(name)


@dataclass(frozen=True, slots=True)
class SyncTalk(Talk):
    """The client that blocks, in a thread: who serves it may run in this process."""

    client: OpenAI

    @override
    async def chat(self, **body: Any) -> ChatCompletion:
        return await asyncio.to_thread(lambda: self.client.chat.completions.create(**body))

    @override
    async def chunks(self, **body: Any) -> list[ChatCompletionChunk]:
        def read() -> list[ChatCompletionChunk]:
            return list(self.client.chat.completions.create(**body, stream=True))

        return await asyncio.to_thread(read)

    @override
    async def assembled(self, **body: Any) -> ChatCompletionMessage:
        def read() -> ChatCompletionMessage:
            with self.client.chat.completions.stream(**body) as stream:
                return stream.get_final_completion().choices[0].message

        return await asyncio.to_thread(read)

    @override
    async def parse(self, form: type[BaseModel], **body: Any) -> BaseModel | None:
        told = await asyncio.to_thread(
            lambda: self.client.chat.completions.parse(**body, response_format=form)
        )
        return told.choices[0].message.parsed

    @override
    async def complete(self, **body: Any) -> Completion:
        return await asyncio.to_thread(lambda: self.client.completions.create(**body))

    @override
    async def completed(self, **body: Any) -> list[Completion]:
        def read() -> list[Completion]:
            client = self.client.with_options(**_LAX)
            return list(client.completions.create(**body, stream=True))

        return await asyncio.to_thread(read)

    @override
    async def embed(self, **body: Any) -> CreateEmbeddingResponse:
        client = self.client if "encoding_format" in body else self.client.with_options(**_LAX)
        return await asyncio.to_thread(client.embeddings.create, **body)

    @override
    async def models(self) -> list[Model]:
        return await asyncio.to_thread(lambda: list(self.client.models.list()))

    @override
    async def model(self, name: str) -> Model:
        return await asyncio.to_thread(self.client.models.retrieve, name)


@asynccontextmanager
async def talking(face: Face, *, blocks: bool, key: str | None = None) -> AsyncIterator[Talk]:
    """Open a client that takes no answer which is not as OpenAI says, and asks only once."""
    given: dict[str, Any] = {
        "base_url": face.url,
        "api_key": key or face.key,
        "max_retries": 0,
        "timeout": SECONDS,
        "_strict_response_validation": True,
    }
    if blocks:
        # Proxies of this machine are nobody's business.
        with OpenAI(**given, http_client=openai.DefaultHttpxClient(trust_env=False)) as client:
            yield SyncTalk(client)
        return
    async with AsyncOpenAI(
        **given, http_client=openai.DefaultAsyncHttpxClient(trust_env=False)
    ) as client:
        yield AsyncTalk(client)


async def chats(talk: Talk, spoken: Spoken) -> None:
    told = await talk.chat(model=spoken.name, messages=QUESTION, max_tokens=64)

    (choice,) = told.choices
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}
    assert told.usage is not None
    used = told.usage
    assert used.total_tokens == used.prompt_tokens + used.completion_tokens
    assert 0 < used.completion_tokens <= 64
    short = await talk.chat(model=spoken.name, messages=QUESTION, max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens <= 3


async def streams(talk: Talk, spoken: Spoken) -> None:
    body = {"model": spoken.name, "messages": QUESTION, "max_tokens": 32}
    asked = await talk.chunks(**body, stream_options={"include_usage": True})
    unasked = await talk.chunks(**body)

    *said, last = asked
    text = "".join(chunk.choices[0].delta.content or "" for chunk in said)
    assert text
    assert said[0].choices[0].delta.role == "assistant"
    assert said[-1].choices[0].finish_reason in {"stop", "length"}
    assert len({chunk.id for chunk in asked}) == 1
    assert not last.choices
    assert last.usage is not None
    assert last.usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in unasked)
    assert all(chunk.choices for chunk in unasked)
    if spoken.repeats:
        plain = await talk.chat(**body)
        assert plain.choices[0].message.content == text
        assert plain.usage is not None
        assert plain.usage.total_tokens == last.usage.total_tokens


async def calls_tools(talk: Talk, spoken: Spoken) -> None:
    body: dict[str, Any] = {"model": spoken.name, "messages": QUESTION, "tools": [WEATHER]}
    # By chance a small model may go on for longer than it may.
    body["temperature"] = 0
    told = await talk.chat(**body, tool_choice="required", max_tokens=128)
    streamed = await talk.assembled(**body, tool_choice=WEATHER, max_tokens=128)

    assert told.choices[0].finish_reason in {"tool_calls", "stop"}
    for message in (told.choices[0].message, streamed):
        assert message.tool_calls
        (call,) = message.tool_calls
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert isinstance(json.loads(call.function.arguments)["city"], str)
    message = told.choices[0].message
    answers = [
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        for call in message.tool_calls or ()
    ]
    body["messages"] = [*QUESTION, message, *answers]
    again = await talk.chat(**body, max_tokens=64)
    answered = again.choices[0].message
    assert answered.content or (spoken.chooses and answered.tool_calls)


async def answers_by_schema(talk: Talk, spoken: Spoken) -> None:
    asked: list[Any] = [{"role": "user", "content": "Is Paris a capital?"}]

    told = await talk.parse(City, model=spoken.name, messages=asked, max_tokens=128)

    assert isinstance(told, City)


async def completes(talk: Talk, spoken: Spoken) -> None:
    if not spoken.completes:
        return
    body = {"model": spoken.name, "prompt": "The river", "max_tokens": 8}
    plain = await talk.complete(**body)
    chunks = await talk.completed(**body)

    assert plain.choices[0].text
    assert plain.usage is not None
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


SPEAKING: Final[tuple[Callable[[Talk, Spoken], Awaitable[None]], ...]] = (
    chats,
    streams,
    calls_tools,
    answers_by_schema,
    completes,
)


async def embeds(talk: Talk, name: str) -> None:
    # The client asks for base64 where nobody says otherwise, and unpacks it.
    packed = await talk.embed(model=name, input="a river")
    told = await talk.embed(model=name, input=["a river", "a mill"], encoding_format="float")

    assert [vector.index for vector in told.data] == [0, 1]
    first, second = (vector.embedding for vector in told.data)
    assert len(first) == len(second) > 1
    assert first != second
    assert max(abs(a - b) for a, b in zip(first, packed.data[0].embedding, strict=True)) < 1e-3
    assert told.usage.prompt_tokens > 0


async def lists_models(talk: Talk, *names: str) -> None:
    listed = {model.id for model in await talk.models()}
    assert listed.issuperset(names)
    for name in names:
        one = await talk.model(name)
        assert (one.id, one.object) == (name, "model")
    await _raises(openai.NotFoundError, talk.model("nobody/knows:it"), "model_not_found")


async def is_refused(talk: Talk, face: Face) -> None:
    """Ask for what cannot be, and expect each error by its class and code."""

    def ask(name: str, **body: Any) -> Awaitable[object]:
        return talk.chat(**{"model": name, "messages": QUESTION, **body})

    await _raises(openai.NotFoundError, ask("nobody/knows:it"), "model_not_found")
    await _raises(openai.BadRequestError, ask(face.openai, n=0), param="n")
    await _raises(openai.BadRequestError, ask(face.openai, messages=[]), param="messages")
    await _raises(
        openai.BadRequestError, ask(face.anthropic, seed=1), "unsupported_parameter", param="seed"
    )
    await _raises(openai.BadRequestError, ask(face.anthropic, extra_body={"x_new": 1}))
    for prefix in ("", "anthropic/"):
        limited = await _raises(openai.RateLimitError, ask(f"{prefix}says-429"))
        assert int(limited.response.headers["retry-after"]) > 0
        await _raises(openai.InternalServerError, ask(f"{prefix}says-500"), "upstream-failed")
        await _raises(openai.InternalServerError, ask(f"{prefix}says-401"), "upstream-refused")
        for fault in ("breaks-off", "fails-midway"):
            broken = talk.chunks(model=f"{prefix}{fault}", messages=QUESTION)
            await _raises(openai.APIError, broken, "upstream-broke-off")


async def is_unknown(talk: Talk, face: Face) -> None:
    """Ask with a key that is none."""
    await _raises(openai.AuthenticationError, talk.models(), "invalid_api_key")
    asked = talk.chat(model=face.openai, messages=QUESTION)
    await _raises(openai.AuthenticationError, asked, "invalid_api_key")


async def _raises(
    kind: type[Any], asking: Awaitable[object], code: str | None = None, *, param: str | None = None
) -> Any:
    caught: Any = None
    try:
        told = await asking
    except kind as exc:
        caught = exc
    else:
        message = f"no {kind.__name__}, but {told}"
        raise AssertionError(message)
    assert code is None or caught.code == code, f"{caught.code}, not {code}: {caught}"
    assert param is None or caught.param == param, f"{caught.param}, not {param}: {caught}"
    return caught


async def try_spoken(face: Face, spoken: Spoken, *, blocks: bool) -> None:
    """Try what one deployment can, vectors among it."""
    async with talking(face, blocks=blocks) as talk:
        for check in SPEAKING:
            await check(talk, spoken)
        await embeds(talk, spoken.name)
        await lists_models(talk, spoken.name)


async def try_scripted(face: Face, *, blocks: bool) -> None:
    """Try everything against the scripted upstream, from both its sides."""
    async with talking(face, blocks=blocks) as talk:
        for spoken in (Spoken(name=face.openai, completes=True), Spoken(name=face.anthropic)):
            for check in SPEAKING:
                await check(talk, spoken)
        await embeds(talk, face.vectors)
        await lists_models(talk, face.openai, face.anthropic, face.vectors)
        await is_refused(talk, face)
    async with talking(face, blocks=blocks, key="sk-of-nobody") as talk:
        await is_unknown(talk, face)
