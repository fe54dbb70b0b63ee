"""What a call asks of a model's process."""

from typing import Any

import pytest

from maas.inference.application.runtime_ports import ModelFacts, RuntimeRequestError
from maas.inference.application.runtime_requests import plan
from maas.inference.public import CallKind

MESSAGES = [{"role": "user", "content": "Hello"}]
PLAIN = ModelFacts(embedding_length=640)


def chat(**more: object) -> dict[str, object]:
    return {"model": "ada", "messages": MESSAGES, **more}


def test_one_choice_is_one_request() -> None:
    shared = plan("chat", chat(temperature=0, max_tokens=5), PLAIN)

    assert [share.body for share in shared.shares] == [
        {"messages": MESSAGES, "temperature": 0, "max_tokens": 5, "cache_prompt": False}
    ]


def test_each_choice_is_a_request_with_a_seed_of_its_own() -> None:
    shared = plan("chat", chat(n=3, seed=2**32 - 1), PLAIN)

    assert [share.body["seed"] for share in shared.shares] == [2**32 - 1, 0, 1]
    assert [share.index for share in shared.shares] == [0, 1, 2]
    assert [share.has_new_prompt for share in shared.shares] == [True, False, False]


def test_choices_of_each_prompt_stand_together() -> None:
    body: dict[str, object] = {"prompt": ["one", [1, 2]], "n": 2}

    shared = plan("completions", body, PLAIN)

    assert [share.body["prompt"] for share in shared.shares] == ["one", "one", [1, 2], [1, 2]]
    assert [share.has_new_prompt for share in shared.shares] == [True, False, True, False]


@pytest.mark.parametrize(
    "field", ["n_predict", "id_slot", "cache_prompt", "lora", "n_cmpl", "return_progress"]
)
def test_fields_of_llama_cpp_alone_are_not_passed_on(field: str) -> None:
    shared = plan("chat", chat(**{field: True}), PLAIN)

    assert shared.shares[0].body.get(field) in {None, False}


def test_the_newer_name_of_the_limit_wins() -> None:
    shared = plan("chat", chat(max_tokens=9, max_completion_tokens=4), PLAIN)

    assert shared.shares[0].body["max_tokens"] == 4


def test_a_stream_is_always_asked_for_its_usage() -> None:
    shared = plan("chat", chat(stream=True), PLAIN)

    assert shared.shares[0].body["stream_options"] == {"include_usage": True}
    assert shared.is_stream
    assert not shared.wants_usage


def test_embeddings_of_the_models_own_length_are_made() -> None:
    shared = plan("embeddings", {"input": "Hello", "dimensions": 640}, PLAIN)

    assert shared.shares[0].body == {"input": "Hello"}


def schema(**fields: object) -> dict[str, Any]:
    """Spell a response format; `fields` are those of its schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": fields}}


def test_what_is_usual_is_passed_on() -> None:
    usual = chat(
        temperature=0.7,
        top_logprobs=20,
        logprobs=True,
        stop=["\n"],
        response_format=schema(
            properties={"maxLength": {"type": "string", "maxLength": 500, "pattern": "^a{2,4}$"}}
        ),
    )

    (share,) = plan("chat", usual, PLAIN).shares

    assert share.body == {
        **{name: value for name, value in usual.items() if name != "model"},
        "cache_prompt": False,
    }


IMAGE = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
REFUSED: list[tuple[CallKind, dict[str, Any], str]] = [
    ("chat", chat(messages=[]), "messages"),
    ("chat", chat(messages="Hello"), "messages"),
    ("chat", chat(messages=[{"role": "user", "content": [IMAGE]}]), "messages"),
    ("chat", chat(messages=[{"role": "user", "content": ["Hello"]}]), "messages"),
    ("chat", chat(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages"),
    ("chat", chat(messages=[{"role": "user", "content": 7}]), "messages"),
    ("chat", chat(messages=[{"content": "Hello"}]), "messages"),
    ("chat", chat(logprobs=True, top_logprobs=2 * 10**9), "top_logprobs"),
    ("chat", chat(logprobs=True, top_logprobs=-5), "top_logprobs"),
    ("completions", {"prompt": "Hello", "logprobs": 21}, "logprobs"),
    ("chat", chat(temperature=float("nan")), "temperature"),
    ("chat", chat(temperature="hot"), "temperature"),
    ("chat", chat(stop=["x"] * 17), "stop"),
    ("chat", chat(stop=["x" * 1_001]), "stop"),
    ("chat", chat(logit_bias={str(number): 1 for number in range(1_025)}), "logit_bias"),
    ("chat", chat(response_format=schema(enum=["x" * 70_000])), "response_format"),
    (
        "chat",
        chat(response_format=schema(items={"maxLength": 300}, minItems=300)),
        "response_format",
    ),
    ("chat", chat(response_format=schema(pattern="(a{30}){9999}")), "response_format"),
    ("chat", chat(response_format=schema(pattern="a{1,99999999}")), "response_format"),
    (
        "chat",
        chat(response_format=schema(anyOf=[{"maxLength": 500} for _ in range(30)])),
        "response_format",
    ),
    ("chat", chat(tools=[{"type": "function", "function": schema(maxItems=513)}]), "tools"),
    ("chat", chat(n=0), "n"),
    ("chat", chat(n=True), "n"),
    ("chat", chat(n=129), "n"),
    ("completions", {"prompt": ["a", "b"], "n": 65}, "n"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": {"a": 1}}, "prompt"),
    ("completions", {"prompt": "a", "echo": True}, "echo"),
    ("completions", {"prompt": "a", "best_of": 2}, "best_of"),
    ("completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("embeddings", {"input": "a", "dimensions": 64}, "dimensions"),
]


@pytest.mark.parametrize(("kind", "body", "param"), REFUSED)
def test_what_cannot_be_done_is_refused(kind: CallKind, body: dict[str, Any], param: str) -> None:
    with pytest.raises(RuntimeRequestError) as refused:
        plan(kind, body, PLAIN)

    assert refused.value.loc == (param,)
