"""What one call may ask of a deployment, and which refusal names what was too much."""

from typing import Any

import pytest

from maas.inference.domain.call import Ask
from maas.inference.domain.failures import UnknownModelError
from maas.inference.domain.limits import (
    BodyOverLimitError,
    ChoicesOverLimitError,
    ContextLengthExceededError,
    OutputOverLimitError,
    expect_allowed,
    expect_within,
    least_input,
)
from maas.inference.domain.route import RouteLimits
from maas.inference.public import CallKind
from maas.shared.domain.principal import KeyLimits
from tests.factories.calls import make_ask, make_route, make_target


def ask_of(text: str, *, most_output: int | None = None) -> Ask:
    return make_ask({"messages": [{"role": "user", "content": text}]}, most_output=most_output)


class TestDeployment:
    def test_what_is_at_the_limit_passes(self) -> None:
        limits = RouteLimits(max_body_bytes=1000, max_output_tokens=50, max_choices=2)

        expect_within(
            make_route(limits=limits), make_ask(most_output=50, choices=2), body_bytes=1000
        )

    def test_without_limits_everything_passes(self) -> None:
        expect_within(
            make_route(), make_ask(most_output=10**6, choices=128), body_bytes=32 * 1024**2
        )

    def test_a_body_of_a_byte_more_is_refused(self) -> None:
        with pytest.raises(BodyOverLimitError, match="1000 bytes"):
            expect_within(
                make_route(limits=RouteLimits(max_body_bytes=1000)), make_ask(), body_bytes=1001
            )

    @pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
    def test_a_token_more_is_refused_by_the_field_that_asked(self, field: str) -> None:
        ask = make_ask({"messages": [], field: 51}, most_output=51)

        with pytest.raises(OutputOverLimitError) as refused:
            expect_within(make_route(limits=RouteLimits(max_output_tokens=50)), ask, body_bytes=10)

        assert refused.value.loc == ("body", field)

    def test_who_asks_for_no_length_is_not_refused_by_it(self) -> None:
        expect_within(
            make_route(limits=RouteLimits(max_output_tokens=50)), make_ask(), body_bytes=10
        )

    @pytest.mark.parametrize(
        ("body", "field"), [({"n": 3}, "n"), ({"n": 1, "best_of": 3}, "best_of")]
    )
    def test_a_choice_more_is_refused(self, body: dict[str, Any], field: str) -> None:
        with pytest.raises(ChoicesOverLimitError) as refused:
            expect_within(
                make_route(limits=RouteLimits(max_choices=2)),
                make_ask(body, choices=3),
                body_bytes=10,
            )

        assert refused.value.loc == ("body", field)


class TestContext:
    def test_what_surely_does_not_fit_is_refused(self) -> None:
        route = make_route(make_target(context_length=100))

        with pytest.raises(ContextLengthExceededError, match="100 tokens") as refused:
            expect_within(route, ask_of("x" * 808), body_bytes=900)

        assert refused.value.loc == ("body", "messages")

    def test_the_answer_asked_for_needs_room_too(self) -> None:
        route = make_route(make_target(context_length=100))

        expect_within(route, ask_of("x" * 400, most_output=50), body_bytes=500)
        with pytest.raises(ContextLengthExceededError):
            expect_within(route, ask_of("x" * 400, most_output=51), body_bytes=500)

    def test_what_may_fit_is_left_to_the_upstream(self) -> None:
        # Prose of 800 characters has some 200 tokens; nobody here knows.
        expect_within(
            make_route(make_target(context_length=100)), ask_of("x" * 800), body_bytes=900
        )

    def test_the_longest_context_of_the_targets_counts(self) -> None:
        route = make_route(make_target(context_length=100), make_target(context_length=200))

        expect_within(route, ask_of("x" * 1600), body_bytes=1700)
        with pytest.raises(ContextLengthExceededError):
            expect_within(route, ask_of("x" * 1608), body_bytes=1700)

    def test_a_target_that_tells_none_may_take_it(self) -> None:
        route = make_route(make_target(context_length=100), make_target())

        expect_within(route, ask_of("x" * 10_000), body_bytes=11_000)


@pytest.mark.parametrize(
    ("kind", "body", "tokens"),
    [
        ("chat", {"messages": [{"content": "x" * 16}, {"content": "y" * 8}]}, 3),
        ("chat", {"messages": [{"content": [{"type": "text", "text": "x" * 24}]}]}, 3),
        ("chat", {"messages": [{"content": [{"type": "image_url", "image_url": "x" * 99}]}]}, 0),
        ("chat", {"messages": [{"content": None}, {}, 3]}, 0),
        ("chat", {"messages": "x" * 80}, 0),
        ("completions", {"prompt": "x" * 24}, 3),
        ("completions", {"prompt": ["x" * 24, "y" * 80]}, 10),
        ("embeddings", {"input": [5, 6, 7]}, 3),
        ("embeddings", {"input": [[5, 6, 7], [1]]}, 3),
        ("embeddings", {"input": []}, 0),
        ("embeddings", {"input": [True, 5.0]}, 0),
        ("embeddings", {}, 0),
    ],
)
def test_the_least_a_prompt_can_have(kind: CallKind, body: dict[str, Any], tokens: int) -> None:
    assert least_input(make_ask(body, kind=kind)) == tokens


class TestKeys:
    def test_a_key_reaches_the_models_it_names(self) -> None:
        expect_allowed(KeyLimits(models=frozenset({"gemma"})), "gemma")

    @pytest.mark.parametrize("name", ["llama", "Gemma", "gemma-3", ""])
    def test_every_other_model_is_unknown_to_it(self, name: str) -> None:
        with pytest.raises(UnknownModelError):
            expect_allowed(KeyLimits(models=frozenset({"gemma"})), name)

    @pytest.mark.parametrize("limits", [None, KeyLimits()])
    def test_who_is_bound_to_none_reaches_all(self, limits: KeyLimits | None) -> None:
        expect_allowed(limits, "llama")
