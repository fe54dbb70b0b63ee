"""Anthropic's own client against the upstream."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tests.upstream.desk import Desk
from tests.upstream.ledger import digest_of
from tests.upstream.server import Upstream, serving

KEY = "sk-ant-of-a-test-0123456789"
MODEL = "claude-upstream"
HELLO: list[Any] = [{"role": "user", "content": "hello out there"}]
HELLO_TOKENS = 11
"""With the system's message, which is there even where it is empty."""

# A client loads all certificates anew, though none is used here: 40 ms a test.
TLS = ssl.create_default_context()


@asynccontextmanager
async def calling(desk: Desk | None = None, *, path: str = "") -> AsyncIterator[AsyncAnthropic]:
    async with (
        serving(Upstream(desk or Desk())) as port,
        AsyncAnthropic(
            base_url=f"http://127.0.0.1:{port}{path}",
            api_key=KEY,
            max_retries=0,
            http_client=anthropic.DefaultAsyncHttpxClient(verify=TLS),
            _strict_response_validation=True,
        ) as client,
    ):
        yield client


async def test_models_are_listed_in_pages() -> None:
    names = tuple(f"model-{number}" for number in range(7))
    desk = Desk(models=names)
    async with calling(desk) as client:
        listed = [model.id async for model in client.models.list(limit=3)]

    assert tuple(listed) == names
    assert len(desk.ledger.calls) == 3


async def test_a_message_is_answered_and_counted() -> None:
    desk = Desk(keys=frozenset({KEY}))
    async with calling(desk) as client:
        told = await client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)

    assert told.content[0].type == "text"
    assert told.content[0].text
    assert (told.stop_reason, told.usage.output_tokens) == ("end_turn", 16)
    assert told.usage.input_tokens == HELLO_TOKENS
    (call,) = desk.ledger.calls
    assert (call.prompt_tokens, call.completion_tokens) == (HELLO_TOKENS, 16)
    assert (call.key_digest, call.id) == (digest_of(KEY), told._request_id)


async def test_a_stream_says_the_same() -> None:
    async with calling() as client:
        whole = await client.messages.create(model=MODEL, max_tokens=5, messages=HELLO)
        async with client.messages.stream(model=MODEL, max_tokens=5, messages=HELLO) as stream:
            told = await stream.get_final_message()

    assert told.content[0].type == whole.content[0].type == "text"
    assert told.content[0].text == whole.content[0].text
    assert (told.stop_reason, told.usage.output_tokens) == ("max_tokens", 5)


async def test_a_stop_sequence_ends_it() -> None:
    async with calling() as client:
        whole = await client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
        assert whole.content[0].type == "text"
        word = whole.content[0].text.split()[3]
        told = await client.messages.create(
            model=MODEL, max_tokens=100, messages=HELLO, stop_sequences=[word]
        )

    assert (told.stop_reason, told.stop_sequence) == ("stop_sequence", word)


async def test_a_tool_is_called_plainly_and_in_a_stream() -> None:
    schema: Any = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools: Any = [{"name": "weather", "input_schema": schema}]
    async with calling() as client:
        asked = await client.messages.create(
            model=MODEL, max_tokens=100, messages=HELLO, tools=tools
        )
        async with client.messages.stream(
            model=MODEL, max_tokens=100, messages=HELLO, tools=tools
        ) as stream:
            streamed = await stream.get_final_message()

    for told in (asked, streamed):
        assert told.stop_reason == "tool_use"
        assert told.content[0].type == "tool_use"
        assert told.content[0].input == {"city": "river"}


@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("says-401", anthropic.AuthenticationError, "authentication_error"),
        ("says-403", anthropic.PermissionDeniedError, "permission_error"),
        ("says-404", anthropic.NotFoundError, "not_found_error"),
        ("says-429", anthropic.RateLimitError, "rate_limit_error"),
        ("says-500", anthropic.InternalServerError, "api_error"),
        ("says-529", anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_it_refuses_on_command(
    model: str, error: type[anthropic.APIStatusError], kind: str
) -> None:
    async with calling() as client:
        with pytest.raises(error) as raised:
            await client.messages.create(model=model, max_tokens=1, messages=HELLO)

    body: Any = raised.value.body
    assert body["error"]["type"] == kind
    assert body["request_id"].startswith("req_")


async def test_a_wrong_key_is_refused() -> None:
    async with calling(Desk(keys=frozenset({"another"}))) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.models.list()
