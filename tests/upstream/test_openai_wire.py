"""OpenAI's own client, which checks each field, against the upstream."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from tests.upstream.desk import Desk
from tests.upstream.ledger import digest_of
from tests.upstream.scripts import Script
from tests.upstream.server import Upstream, serving

KEY = "sk-of-a-test-0123456789"
MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "hello out there"}]
HELLO_TOKENS = 7

# A client loads all certificates anew, though none is used here: 40 ms a test.
TLS = ssl.create_default_context()


@asynccontextmanager
async def calling(
    desk: Desk | None = None, *, path: str = "/v1", **options: Any
) -> AsyncIterator[AsyncOpenAI]:
    async with serving(Upstream(desk or Desk())) as port:
        given = {
            "api_key": KEY,
            "max_retries": 0,
            "_strict_response_validation": True,
            "http_client": openai.DefaultAsyncHttpxClient(verify=TLS),
            **options,
        }
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}{path}", **given) as client:
            yield client


async def chunks_of(client: AsyncOpenAI, **options: Any) -> list[ChatCompletionChunk]:
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "stream": True, **options}
    stream = await client.chat.completions.create(**asked)
    return [chunk async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


class TestModels:
    async def test_are_listed_and_shown(self) -> None:
        async with calling(Desk(models=("one", "org/two:latest"))) as client:
            listed = await client.models.list()
            shown = await client.models.retrieve("org/two:latest")

        assert [model.id for model in listed.data] == ["one", "org/two:latest"]
        assert shown.id == "org/two:latest"

    @pytest.mark.parametrize("path", ["/v1", "/api/v1", "/openai/v1", "/compatible-mode/v1"])
    async def test_stand_where_suppliers_have_them(self, path: str) -> None:
        async with calling(path=path) as client:
            assert (await client.models.list()).data

    async def test_a_wrong_path_and_an_unknown_model_are_not_found(self) -> None:
        async with calling(path="/wrong") as client:
            with pytest.raises(openai.NotFoundError):
                await client.models.list()
        async with calling() as client:
            with pytest.raises(openai.NotFoundError) as raised:
                await client.chat.completions.create(model="nobody", messages=HELLO)

        assert raised.value.code == "model_not_found"


class TestChat:
    async def test_is_answered_and_counted(self) -> None:
        desk = Desk(keys=frozenset({KEY}))
        async with calling(desk) as client:
            told = await client.chat.completions.create(
                model=MODEL, messages=HELLO, extra_headers={"X-Client-Request-Id": "mine"}
            )

        assert told.choices[0].message.content
        assert told.choices[0].finish_reason == "stop"
        assert told.usage is not None
        assert told.usage.prompt_tokens == HELLO_TOKENS
        assert told.usage.completion_tokens == 16
        (call,) = desk.ledger.calls
        assert (call.status, call.model, call.is_complete) == (200, MODEL, True)
        assert (call.prompt_tokens, call.completion_tokens) == (HELLO_TOKENS, 16)
        assert (call.key_style, call.key_digest) == ("bearer", digest_of(KEY))
        assert (call.id, call.client_request_id) == (told._request_id, "mine")

    async def test_repeats_itself_for_a_seed(self) -> None:
        async with calling() as client:
            one, same, other = [
                await client.chat.completions.create(model=MODEL, messages=HELLO, seed=seed)
                for seed in (1, 1, 2)
            ]

        said = [each.choices[0].message.content for each in (one, same, other)]
        assert said[0] == said[1] != said[2]
        assert one.system_fingerprint == same.system_fingerprint

    async def test_ends_at_the_limit_and_at_a_stop(self) -> None:
        async with calling() as client:
            whole = await client.chat.completions.create(model=MODEL, messages=HELLO)
            said = whole.choices[0].message.content or ""
            short = await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_completion_tokens=3
            )
            stopped = await client.chat.completions.create(
                model=MODEL, messages=HELLO, stop=[said.split()[2]]
            )

        assert short.choices[0].message.content == " ".join(said.split()[:3])
        assert short.choices[0].finish_reason == "length"
        assert short.usage is not None
        assert short.usage.completion_tokens == 3
        assert stopped.choices[0].message.content == " ".join(said.split()[:2]) + " "

    async def test_says_several_things_with_their_logprobs(self) -> None:
        async with calling() as client:
            told = await client.chat.completions.create(
                model=MODEL, messages=HELLO, n=3, logprobs=True, top_logprobs=2, max_tokens=4
            )

        assert len({choice.message.content for choice in told.choices}) == 3
        assert told.usage is not None
        assert told.usage.completion_tokens == 12
        logprobs = told.choices[0].logprobs
        assert logprobs is not None
        assert [len(each.top_logprobs) for each in logprobs.content or []] == [2] * 4

    async def test_calls_a_tool_and_then_answers(self) -> None:
        schema = {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city"],
        }
        tools: list[Any] = [
            {"type": "function", "function": {"name": "weather", "parameters": schema}}
        ]
        async with calling() as client:
            asked = await client.chat.completions.create(model=MODEL, messages=HELLO, tools=tools)
            (call,) = asked.choices[0].message.tool_calls or []
            assert call.type == "function"
            done: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
            told = await client.chat.completions.create(
                model=MODEL, messages=[*HELLO, done], tools=tools
            )
            streamed = await chunks_of(client, tools=tools)

        assert asked.choices[0].finish_reason == "tool_calls"
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"city": "river", "days": 2, "unit": "C"}
        assert told.choices[0].message.tool_calls is None
        parts = [
            part
            for chunk in streamed
            for part in (chunk.choices[0].delta.tool_calls or [] if chunk.choices else [])
        ]
        arguments = "".join((p.function.arguments or "") if p.function else "" for p in parts)
        assert json.loads(arguments) == {"city": "river", "days": 2, "unit": "C"}

    async def test_keeps_to_a_schema(self) -> None:
        schema = {
            "type": "object",
            "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/item"}}},
            "$defs": {"item": {"type": "object", "properties": {"ok": {"type": "boolean"}}}},
        }
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        async with calling() as client:
            told = await client.chat.completions.create(
                model=MODEL, messages=HELLO, response_format=wanted
            )

        assert json.loads(told.choices[0].message.content or "") == {"items": [{"ok": True}]}


class TestStreams:
    async def test_come_in_chunks_and_say_the_same(self) -> None:
        desk = Desk()
        async with calling(desk) as client:
            whole = await client.chat.completions.create(model=MODEL, messages=HELLO)
            chunks = await chunks_of(client)

        assert text_of(chunks) == whole.choices[0].message.content
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert [chunk.usage for chunk in chunks] == [None] * 18
        assert desk.ledger.calls[1].completion_tokens == 16
        assert desk.ledger.calls[1].is_streamed

    async def test_tell_usage_where_it_is_asked_for(self) -> None:
        async with calling() as client:
            chunks = await chunks_of(client, stream_options={"include_usage": True}, n=2)

        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 32
        assert {chunk.usage for chunk in chunks[:-1]} == {None}

    async def test_are_read_from_pieces_of_any_size(self) -> None:
        async with calling() as client:
            whole = await chunks_of(client)
            split = await chunks_of(client, model="splits-events")

        assert text_of(split) == text_of(whole)


class TestOthers:
    async def test_completions(self) -> None:
        # The strict client wants a reason to finish with each chunk, which the real one lacks too.
        async with calling(_strict_response_validation=False) as client:
            told = await client.completions.create(model=MODEL, prompt="once upon a time")
            stream = await client.completions.create(
                model=MODEL, prompt="once upon a time", stream=True
            )
            streamed = "".join([chunk.choices[0].text async for chunk in stream])

        assert streamed == told.choices[0].text
        assert told.usage is not None
        assert told.usage.prompt_tokens == 4

    async def test_embeddings_in_both_encodings(self) -> None:
        # The strict client holds packed vectors for a mistake, though it asks for them.
        async with calling(_strict_response_validation=False) as client:
            plain = await client.embeddings.create(
                model=MODEL, input=["one", "two"], encoding_format="float", dimensions=5
            )
            packed = await client.embeddings.create(model=MODEL, input=["one", "two"], dimensions=5)

        assert [len(each.embedding) for each in plain.data] == [5, 5]
        for one, other in zip(plain.data, packed.data, strict=True):
            assert other.embedding == pytest.approx(one.embedding, abs=1e-6)

    async def test_azures_paths_and_keys(self) -> None:
        desk = Desk(keys=frozenset({KEY}))
        async with (
            serving(Upstream(desk)) as port,
            AsyncAzureOpenAI(
                azure_endpoint=f"http://127.0.0.1:{port}",
                api_key=KEY,
                api_version="2024-10-21",
                _strict_response_validation=True,
            ) as client,
        ):
            told = await client.chat.completions.create(model=MODEL, messages=HELLO)

        assert told.model == MODEL
        assert desk.ledger.calls[0].path == f"/openai/deployments/{MODEL}/chat/completions"
        assert desk.ledger.calls[0].key_style == "api-key"


class TestRefusals:
    async def test_a_wrong_key(self) -> None:
        async with calling(Desk(keys=frozenset({"another"}))) as client:
            with pytest.raises(openai.AuthenticationError) as raised:
                await client.models.list()

        # The real one quotes the ends of a key, and so does this.
        assert KEY[:8] in str(raised.value)
        assert raised.value.code == "invalid_api_key"

    @pytest.mark.parametrize(
        ("model", "error", "code"),
        [
            ("says-401", openai.AuthenticationError, "invalid_api_key"),
            ("says-403", openai.PermissionDeniedError, "unsupported_country_region_territory"),
            ("says-404", openai.NotFoundError, "model_not_found"),
            ("says-429", openai.RateLimitError, "rate_limit_exceeded"),
            ("says-429-quota", openai.RateLimitError, "insufficient_quota"),
            ("says-402", openai.APIStatusError, "insufficient_quota"),
            ("says-500", openai.InternalServerError, None),
            ("says-503", openai.InternalServerError, None),
        ],
    )
    async def test_on_command(
        self, model: str, error: type[openai.APIStatusError], code: str | None
    ) -> None:
        async with calling() as client:
            with pytest.raises(error) as raised:
                await client.chat.completions.create(model=model, messages=HELLO)

        assert raised.value.code == code

    async def test_says_when_to_come_again(self) -> None:
        async with calling() as client:
            with pytest.raises(openai.RateLimitError) as raised:
                await client.chat.completions.create(model="says-429", messages=HELLO)

        assert raised.value.response.headers["retry-after"] == "7"

    async def test_so_many_times_and_then_no_more(self) -> None:
        desk = Desk()
        desk.scripts.put(MODEL, Script(status=500, times=2))
        async with calling(desk) as client:
            for _ in range(2):
                with pytest.raises(openai.InternalServerError):
                    await client.chat.completions.create(model=MODEL, messages=HELLO)
            told = await client.chat.completions.create(model=MODEL, messages=HELLO)

        assert told.choices
        assert [call.status for call in desk.ledger.calls] == [500, 500, 200]


class TestLies:
    @pytest.mark.parametrize(
        ("model", "told"),
        [
            ("bills-more", (HELLO_TOKENS + 1_000, 1_032)),
            ("bills-less", (HELLO_TOKENS // 2, 8)),
            ("bills-nothing", None),
        ],
    )
    async def test_about_usage_are_not_in_the_books(
        self, model: str, told: tuple[int, int] | None
    ) -> None:
        desk = Desk()
        async with calling(desk) as client:
            answer = await client.chat.completions.create(model=model, messages=HELLO)

        usage = answer.usage
        assert (usage and (usage.prompt_tokens, usage.completion_tokens)) == told
        (call,) = desk.ledger.calls
        assert (call.prompt_tokens, call.completion_tokens) == (HELLO_TOKENS, 16)
        assert call.told_completion_tokens == (told and told[1])

    async def test_fields_that_nobody_knows_yet(self) -> None:
        async with calling() as client:
            told = await client.chat.completions.create(model="knows-more-fields", messages=HELLO)

        assert (told.model_extra or {})["x_new"]["made_up"] == [1, None, "two"]

    async def test_what_it_thought_is_counted(self) -> None:
        async with calling() as client:
            chunks = await chunks_of(client, model="thinks", stream_options={"include_usage": True})

        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        thought = [delta for delta in deltas if "reasoning_content" in (delta.model_extra or {})]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 21
        assert chunks[-1].usage.completion_tokens_details is not None
        assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 5
        assert len(thought) == 5
