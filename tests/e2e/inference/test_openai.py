"""The official client, as strict as it can be, against deployments of a scripted supplier."""

import asyncio
import functools
import gc
import json
from typing import Any, Final

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.shared_params import ResponseFormatJSONSchema

from maas.inference.domain.call import Ask
from maas.shared.infrastructure.settings import Settings
from maas.shared.interface.traffic import IncomingBody
from tests.e2e.conftest import MakePerson
from tests.e2e.inference.gateway import CHAT, SUPPLIER_KEY, Gateway, opened
from tests.upstream.desk import Desk
from tests.upstream.scripts import Script

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

ASKED: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": "Tell me of rivers."}]
WEATHER: Final[ChatCompletionToolParam] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PLACE: Final[ResponseFormatJSONSchema] = {
    "type": "json_schema",
    "json_schema": {
        "name": "place",
        "schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


async def refused(gateway: Gateway, model: str, **fields: Any) -> openai.APIStatusError:
    """Call what will be refused, plain and streamed, and give what the client makes of it."""
    async with gateway.client() as client:
        with pytest.raises(openai.APIStatusError) as plain:
            await client.chat.completions.create(model=model, messages=ASKED, **fields)
        with pytest.raises(openai.APIStatusError) as streamed:
            await client.chat.completions.create(model=model, messages=ASKED, stream=True, **fields)
    told = (plain.value.status_code, plain.value.code, plain.value.type)
    assert (streamed.value.status_code, streamed.value.code, streamed.value.type) == told
    return plain.value


async def test_answers_pass_through_the_strict_client(gateway: Gateway) -> None:
    await gateway.deploy()

    async with gateway.client() as client:
        plain = await client.chat.completions.create(
            model="bot", messages=ASKED, n=2, seed=7, logprobs=True, top_logprobs=2, stop=["|"]
        )
        tools = await client.chat.completions.create(model="bot", messages=ASKED, tools=[WEATHER])
        formed = await client.chat.completions.create(
            model="bot",
            messages=ASKED,
            response_format=PLACE,
        )
        text = await client.completions.create(model="bot", prompt=["Once", "Twice"])
        floats = await client.embeddings.create(
            model="bot", input=["a", "b"], dimensions=4, encoding_format="float"
        )
    # It asks for base64 unless told otherwise, which its own types do not allow for.
    async with gateway.client(_strict_response_validation=False) as client:
        vectors = await client.embeddings.create(model="bot", input="a", dimensions=4)

    logprobs = plain.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert (len(plain.choices), len(logprobs.content[0].top_logprobs)) == (2, 2)
    [call] = tools.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, tools.choices[0].finish_reason) == ("get_weather", "tool_calls")
    assert json.loads(formed.choices[0].message.content or "").keys() == {"city"}
    assert [len(each.text.split()) for each in text.choices] == [16, 16]
    assert [len(each.embedding) for each in floats.data] == [4, 4]
    assert floats.data[0].embedding == pytest.approx(vectors.data[0].embedding, abs=1e-6)


async def test_streams_pass_through_the_strict_client(gateway: Gateway) -> None:
    await gateway.deploy()

    async with gateway.client() as client:
        plain = await client.chat.completions.create(model="bot", messages=ASKED, seed=7)
        stream = await client.chat.completions.create(
            model="bot", messages=ASKED, seed=7, stream=True
        )
        chunks = [each async for each in stream]
        counted = await client.chat.completions.create(
            model="bot", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        *_, last = [each async for each in counted]
    # Its types know no piece of a text that is not the last one.
    async with gateway.client(_strict_response_validation=False) as client:
        texts = await client.completions.create(model="bot", prompt="Once", stream=True)
        text = "".join([each.choices[0].text async for each in texts])

    said = "".join(each.choices[0].delta.content or "" for each in chunks)
    assert said == plain.choices[0].message.content
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (8, 16)
    assert len(text.split()) == 16


async def test_the_synchronous_client_is_served_alike(gateway: Gateway) -> None:
    await gateway.deploy()

    def call() -> tuple[str, str, list[str]]:
        with gateway.sync() as client:
            plain = client.chat.completions.create(model="bot", messages=ASKED, seed=1)
            stream = client.chat.completions.create(
                model="bot", messages=ASKED, seed=1, stream=True
            )
            said = "".join(each.choices[0].delta.content or "" for each in stream)
            return (
                plain.choices[0].message.content or "",
                said,
                [m.id for m in client.models.list()],
            )

    plain, said, models = await asyncio.to_thread(call)

    assert (said, models) == (plain, ["bot"])


async def test_models_are_what_the_key_may_call(gateway: Gateway) -> None:
    await gateway.deploy(name="acme/bot:7b")
    await gateway.deploy("gpt-4o", name="other")
    limited = await gateway.made(
        "/users/api-keys",
        {"name": "limited", "scopes": ["inference:call"], "allowed_models": ["acme/bot:7b"]},
    )

    async with gateway.client() as client, gateway.client(api_key=limited["key"]) as bound:
        found = [each.id async for each in client.models.list()]
        own = [each.id async for each in bound.models.list()]
        one = await client.models.retrieve("acme/bot:7b")
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.models.retrieve("nobody")
        with pytest.raises(openai.NotFoundError) as hidden:
            await bound.chat.completions.create(model="other", messages=ASKED)

    assert (found, own, one.object) == (["acme/bot:7b", "other"], ["acme/bot:7b"], "model")
    assert unknown.value.code == hidden.value.code == "model_not_found"


async def test_a_session_token_calls_too(gateway: Gateway) -> None:
    await gateway.deploy()

    async with gateway.client(api_key=gateway.root.access_token) as client:
        answer = await client.chat.completions.create(model="bot", messages=ASKED)

    assert answer.choices[0].message.content


async def test_whatever_is_refused_has_the_form_that_clients_read(gateway: Gateway) -> None:
    await gateway.deploy(max_output_tokens=100, max_choices=2)
    for model in ("says-401-and-the-key", "says-429", "says-500", "hangs-up", "redirects"):
        await gateway.deploy(model, name=model)

    expected = {
        ("says-401-and-the-key",): (502, "upstream-refused", "server_error"),
        ("says-429",): (429, "upstream-rate-limited", "rate_limit_error"),
        ("says-500",): (502, "upstream-failed", "server_error"),
        ("hangs-up",): (502, "upstream-failed", "server_error"),
        ("redirects",): (502, "upstream-refused", "server_error"),
        ("nobody",): (404, "model_not_found", "invalid_request_error"),
    }
    for (model,), (status, code, kind) in expected.items():
        error = await refused(gateway, model)
        assert (model, error.status_code, error.code, error.type) == (model, status, code, kind)
        assert SUPPLIER_KEY not in error.response.text
        assert error.request_id
    long = await refused(gateway, "bot", max_completion_tokens=101)
    many = await refused(gateway, "bot", n=3)
    assert (long.status_code, long.param, many.param) == (400, "max_completion_tokens", "n")


async def test_what_upstreams_say_of_the_request_is_passed_on(gateway: Gateway) -> None:
    await gateway.deploy()

    async with gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.chat.completions.create(model="bot", messages=[])

    assert refusal.value.param == "messages"
    assert "messages" in refusal.value.message


async def test_what_no_route_takes_is_told_in_the_same_form(gateway: Gateway) -> None:
    url, own = "/v1/chat/completions", {"Authorization": f"Bearer {gateway.key}"}
    http = gateway.http

    answers = {
        "invalid_api_key": await http.post(url, json={}),
        "model_not_found": await http.post(url, json={"model": "x"}, headers=own),
        "invalid-call": await http.post(url, json={"messages": []}, headers=own),
        "invalid-json": await http.post(
            url, content=b'{"a": NaN}', headers={**own, "Content-Type": "application/json"}
        ),
        "json-too-deep": await http.post(
            url,
            content=b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
            headers={**own, "Content-Type": "application/json"},
        ),
        "unsupported-media-type": await http.post(url, content=b"a=b", headers=own),
        "route-not-found": await http.get("/v1/nothing", headers=own),
        "method-not-allowed": await http.delete(url, headers=own),
    }

    told = {code: answer.json()["error"] for code, answer in answers.items()}
    assert {code: each["code"] for code, each in told.items()} == {code: code for code in told}
    assert [answer.status_code for answer in answers.values()] == [
        401, 404, 400, 400, 400, 415, 404, 405,
    ]  # fmt: skip
    assert all(each.keys() == {"message", "type", "param", "code"} for each in told.values())
    assert "POST" in answers["method-not-allowed"].headers["Allow"]


async def test_another_target_answers_where_one_does_not(gateway: Gateway) -> None:
    await gateway.deploy("says-500", CHAT)

    async with gateway.client() as client:
        answer = await client.chat.completions.create(model="bot", messages=ASKED)

    assert answer.model == CHAT
    assert [each.status for each in gateway.calls] == [500, 200]


async def test_a_stream_that_breaks_off_ends_with_an_error(gateway: Gateway) -> None:
    await gateway.deploy("breaks-off")

    async with gateway.client() as client:
        stream = await client.chat.completions.create(model="bot", messages=ASKED, stream=True)
        with pytest.raises(openai.APIError) as broken:
            [each async for each in stream]
    raw = await gateway.http.post(
        "/v1/chat/completions",
        json={"model": "bot", "messages": ASKED, "stream": True},
        headers={"Authorization": f"Bearer {gateway.key}"},
    )

    assert broken.value.code == "upstream-broke-off"
    assert '"upstream-broke-off"' in raw.text
    assert "[DONE]" not in raw.text


async def test_pieces_come_as_they_are_sent_and_split_anywhere(gateway: Gateway) -> None:
    gateway.desk.scripts.put("slow", Script(chunk_delay=0.1, tokens=4))
    await gateway.deploy("slow", name="slow")
    await gateway.deploy("splits-events", name="split")

    async with gateway.client() as client:
        stream = await client.chat.completions.create(model="slow", messages=ASKED, stream=True)
        loop = asyncio.get_running_loop()
        times = [loop.time() async for _ in stream]
        split = await client.chat.completions.create(model="split", messages=ASKED, stream=True)
        said = "".join([each.choices[0].delta.content or "" async for each in split])

    assert times[-1] - times[0] > 0.3
    assert len(said.split()) == 16


async def test_long_prompts_and_odd_fields_reach_the_upstream_as_they_are(
    gateway: Gateway,
) -> None:
    await gateway.deploy()
    long = "河" * 600_000

    async with gateway.client(timeout=30) as client:
        answer = await client.chat.completions.create(
            model="bot",
            messages=[{"role": "user", "content": long}],
            extra_body={"top_k": 3, "nested": {"of": [1.5, None]}},
        )

    assert answer.choices[0].message.content


async def test_a_reader_who_leaves_frees_the_upstream_and_pays_for_what_came(
    gateway: Gateway,
) -> None:
    gateway.desk.scripts.put("endless", Script(chunk_delay=0.02, tokens=1_000))
    await gateway.deploy("endless")

    async with gateway.client() as client:
        stream = await client.chat.completions.create(model="bot", messages=ASKED, stream=True)
        for _ in range(5):
            await anext(stream)
        await stream.close()
        sums = await settled(gateway, requests=1)
    (call,) = gateway.calls

    assert not call.is_complete
    assert 5 <= call.chunks_sent < 200
    assert 3 <= sums["output_tokens"] <= call.completion_tokens
    assert sums["estimated_requests"] == 1


async def test_who_leaves_before_an_answer_begins_is_waited_for_no_longer(
    gateway: Gateway,
) -> None:
    gateway.desk.scripts.put("quiet", Script(head_delay=30))
    await gateway.deploy("quiet")

    async with gateway.client(timeout=1) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="bot", messages=ASKED, stream=True)
        sums = await settled(gateway, requests=1)

    assert sums["output_tokens"] == 0
    assert sums["estimated_requests"] == 1


async def test_who_leaves_a_queue_pays_nothing_and_is_not_sent(gateway: Gateway) -> None:
    gateway.desk.scripts.put("slow", Script(head_delay=2))
    await gateway.deploy("slow", each={"max_concurrent": 1})

    async with gateway.client() as client, gateway.client(timeout=1) as hasty:
        first = asyncio.create_task(client.chat.completions.create(model="bot", messages=ASKED))
        while not gateway.calls:  # noqa: ASYNC110  the supplier tells nobody
            await asyncio.sleep(0.01)
        with pytest.raises(openai.APITimeoutError):
            await hasty.chat.completions.create(model="bot", messages=ASKED)
        await first
        sums = await settled(gateway, requests=1)

    assert len(gateway.calls) == 1
    assert sums["estimated_requests"] == 0


async def settled(gateway: Gateway, *, requests: int) -> dict[str, Any]:
    """Wait until the ledger has so many calls, and give its sums."""
    async with asyncio.timeout(10):
        while True:
            answer = await gateway.http.get("/api/v1/usage", headers=gateway.root.headers)
            sums: dict[str, Any] = answer.json()["sums"]
            if sums["requests"] == requests:
                return sums
            await asyncio.sleep(0.02)


async def test_calls_that_nobody_waits_for_any_more_still_have_their_place(
    calling_settings: Settings, supplier: tuple[Desk, int], make_person: MakePerson
) -> None:
    inference = calling_settings.inference.model_copy(update={"max_calls": 4})
    settings = calling_settings.model_copy(update={"inference": inference})
    root = await make_person("root", roles=("admin", "platform_admin"))
    supplier[0].scripts.put("slow", Script(head_delay=1.5))

    async with opened(settings, *supplier, root) as gateway, gateway.client(timeout=1) as client:
        await gateway.deploy("slow")
        ask = functools.partial(client.chat.completions.create, model="bot", messages=ASKED)
        left = await asyncio.gather(ask(), ask(), return_exceptions=True)
        with pytest.raises(openai.InternalServerError) as refusal:
            await ask()
        await settled(gateway, requests=2)
        answer = await ask(timeout=5)

    assert [type(each) for each in left] == [openai.APITimeoutError] * 2
    assert refusal.value.code == "too-many-calls"
    assert answer.choices


def kept_of_calls() -> set[int]:
    return {id(each) for each in gc.get_objects() if type(each) in {Ask, IncomingBody}}


async def test_nothing_of_a_call_waits_for_the_garbage_collector(gateway: Gateway) -> None:
    await gateway.deploy()
    async with gateway.client() as client:
        gc.collect()
        gc.disable()
        # Of other tests: modules keep some as constants.
        before = kept_of_calls()
        try:
            for is_stream in (False, True):
                answer = await client.chat.completions.create(
                    model="bot", messages=ASKED, stream=is_stream
                )
                if isinstance(answer, openai.AsyncStream):
                    async for _ in answer:
                        pass
            async with asyncio.timeout(30):
                while kept_of_calls() - before:  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()
