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


IMAGE = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
REFUSED: list[tuple[CallKind, dict[str, Any], str]] = [
    ("chat", chat(messages=[]), "messages"),
    ("chat", chat(messages="Hello"), "messages"),
    ("chat", chat(messages=[{"role": "user", "content": [IMAGE]}]), "messages"),
    ("chat", chat(messages=[{"role": "user", "content": ["Hello"]}]), "messages"),
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
