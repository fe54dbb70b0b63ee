"""A chat of OpenAI's is spelled for Anthropic's API, or refused by what is in the way."""

import json
from typing import Any

import pytest
from anthropic.types import message_create_params
from pydantic import TypeAdapter

from maas.inference.domain.anthropic_request import DEFAULT_OUTPUT, spell
from maas.inference.domain.call import Ask
from maas.inference.domain.wire import NotTakenError
from tests.upstream import anthropic_request

ACCEPTED: TypeAdapter[Any] = TypeAdapter(message_create_params.MessageCreateParams)
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TURN = {"role": "user", "content": [{"type": "text", "text": "hello"}]}
PIXEL = "iVBORw0KGgo="


def ask(body: dict[str, object], *, is_stream: bool = False, most_output: int | None = None) -> Ask:
    return Ask(
        kind="chat",
        model="chat",
        body={"model": "chat", "messages": HELLO, **body},
        most_input=100,
        likely_input=10,
        most_output=most_output,
        is_stream=is_stream,
    )


def spelled(**body: object) -> dict[str, Any]:
    """Spell it, and hold it against Anthropic's own types."""
    written: dict[str, Any] = json.loads(spell(ask(body), "claude", most_output=100))
    ACCEPTED.validate_python(written)
    return written


def refused(**body: object) -> tuple[str | int, ...]:
    with pytest.raises(NotTakenError) as raised:
        spell(ask(body), "claude", most_output=100)
    return raised.value.loc


def function(name: str, **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **more}}


class TestWhatIsAlwaysTold:
    def test_is_the_model_the_turns_and_how_long_the_answer_may_be(self) -> None:
        assert spelled() == {"model": "claude", "max_tokens": 100, "messages": [TURN]}

    @pytest.mark.parametrize(
        ("limit", "own", "expected"), [(7, 9, 7), (None, 9, 9), (None, None, DEFAULT_OUTPUT)]
    )
    def test_counts_what_was_granted_before_what_was_asked(
        self, limit: int | None, own: int | None, expected: int
    ) -> None:
        written = spell(ask({}, most_output=own), "claude", most_output=limit)

        assert json.loads(written)["max_tokens"] == expected

    def test_says_whether_it_is_streamed(self) -> None:
        written = json.loads(spell(ask({}, is_stream=True), "claude", most_output=1))

        assert written["stream"] is True

    def test_passes_what_openai_does_not_know(self) -> None:
        told = spelled(top_k=5, thinking={"type": "enabled", "budget_tokens": 1_024}, x_new=[1])

        assert (told["top_k"], told["x_new"]) == (5, [1])
        assert told["thinking"] == {"type": "enabled", "budget_tokens": 1_024}

    def test_survives_words_that_no_encoding_has(self) -> None:
        told = spelled(messages=[{"role": "user", "content": "\ud800"}])

        assert told["messages"][0]["content"][0]["text"] == "\ud800"


class TestConversations:
    def test_of_the_system_come_before_everything(self) -> None:
        told = spelled(
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
                {"role": "user", "content": "hello"},
                {"role": "system", "content": "Be quick."},
            ]
        )

        assert [block["text"] for block in told["system"]] == ["Be brief.", "Be kind.", "Be quick."]
        assert told["messages"] == [TURN]

    def test_join_what_one_side_says_in_a_row(self) -> None:
        told = spelled(messages=[*HELLO, {"role": "user", "content": "again"}])

        assert [len(turn["content"]) for turn in told["messages"]] == [2]

    @pytest.mark.parametrize("nothing", [None, "", "  ", [], [{"type": "text", "text": "\n"}]])
    def test_leave_out_what_says_nothing(self, nothing: object) -> None:
        told = spelled(messages=[*HELLO, {"role": "assistant", "content": nothing}])

        assert told["messages"] == [TURN]

    def test_carry_pictures_and_documents(self) -> None:
        told = spelled(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/PNG;base64,{PIXEL}", "detail": "low"},
                        },
                        {
                            "type": "file",
                            "file": {
                                "filename": "a.pdf",
                                "file_data": "data:application/pdf;base64,JVBERg==",
                            },
                        },
                        {"type": "text", "text": "?", "cache_control": {"type": "ephemeral"}},
                    ],
                }
            ]
        )

        by_url, inline, document, words = told["messages"][0]["content"]
        assert by_url == {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}}
        assert inline["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
        assert document["title"] == "a.pdf"
        assert document["source"]["media_type"] == "application/pdf"
        assert words["cache_control"] == {"type": "ephemeral"}

    def test_answer_parallel_calls_in_one_turn(self) -> None:
        calls = [
            {
                "id": each,
                "type": "function",
                "function": {"name": "look", "arguments": arguments},
            }
            for each, arguments in [("call_1", '{"at":1}'), ("functions.look:1", "")]
        ]
        told = spelled(
            messages=[
                *HELLO,
                {"role": "assistant", "content": None, "tool_calls": calls},
                {"role": "tool", "tool_call_id": "call_1", "content": "one"},
                {"role": "tool", "tool_call_id": "functions.look:1", "content": ""},
                {"role": "user", "content": "well?"},
            ]
        )

        anthropic_request.check(told)
        first, second = told["messages"][1]["content"]
        assert (first["input"], second["input"]) == ({"at": 1}, {})
        one, two, words = told["messages"][2]["content"]
        assert (one["tool_use_id"], two["tool_use_id"]) == (first["id"], second["id"])
        assert (one["content"][0]["text"], "content" in two, words["text"]) == (
            "one",
            False,
            "well?",
        )

    def test_give_signed_thoughts_back_as_they_were_told(self) -> None:
        thoughts = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
        told_in_a_stream = [{"index": 0, **thought} for thought in thoughts]
        said = {"role": "assistant", "content": "yes", "thinking_blocks": told_in_a_stream}

        told = spelled(messages=[*HELLO, said])

        assert told["messages"][1]["content"] == [*thoughts, {"type": "text", "text": "yes"}]

    @pytest.mark.parametrize(
        ("message", "loc"),
        [
            ("hello", ()),
            ({"role": "function", "content": "1"}, ("role",)),
            ({"role": ["user"], "content": "1"}, ("role",)),
            ({"role": "user", "content": 1}, ("content",)),
            ({"role": "user", "content": [1]}, ("content", 0)),
            ({"role": "user", "content": [{"type": "input_audio"}]}, ("content", 0, "type")),
            ({"role": "user", "content": [{"type": "text"}]}, ("content", 0, "text")),
            (
                {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
                ("content", 0, "file", "file_id"),
            ),
            (
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA"}}
                    ],
                },
                ("content", 0, "image_url", "url"),
            ),
            (
                {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
                ("content", 0, "type"),
            ),
            ({"role": "assistant", "function_call": {}}, ("function_call",)),
            ({"role": "assistant", "tool_calls": {}}, ("tool_calls",)),
            ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, ("tool_calls", 0, "type")),
            (
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "[1]"}}],
                },
                ("tool_calls", 0, "function", "arguments"),
            ),
            (
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {"arguments": "{"}}]},
                ("tool_calls", 0, "function", "arguments"),
            ),
            ({"role": "tool", "content": "1"}, ("tool_call_id",)),
        ],
    )
    def test_are_refused_where_they_say_what_turns_cannot(
        self, message: object, loc: tuple[str | int, ...]
    ) -> None:
        assert refused(messages=[*HELLO, message]) == ("messages", 1, *loc)

    @pytest.mark.parametrize("messages", [None, "hello", {}])
    def test_are_lists(self, messages: object) -> None:
        assert refused(messages=messages) == ("messages",)


class TestTools:
    def test_are_told_with_their_schemas(self) -> None:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}

        told = spelled(
            tools=[
                function("weather", description="How it is", parameters=schema, strict=True),
                function("time", strict=False),
            ]
        )

        assert told["tools"] == [
            {
                "name": "weather",
                "description": "How it is",
                "input_schema": schema,
                "strict": True,
            },
            {"name": "time", "input_schema": {"type": "object", "properties": {}}},
        ]
        assert "tool_choice" not in told

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("auto", {"type": "auto"}),
            ("required", {"type": "any"}),
            ("none", {"type": "none"}),
            (function("weather"), {"type": "tool", "name": "weather"}),
        ],
    )
    @pytest.mark.parametrize("is_parallel", [True, False, None])
    def test_are_chosen_among(
        self, choice: object, expected: dict[str, object], *, is_parallel: bool | None
    ) -> None:
        told = spelled(
            tools=[function("weather")], tool_choice=choice, parallel_tool_calls=is_parallel
        )

        alone = is_parallel is False and choice != "none"
        more = {"disable_parallel_tool_use": True} if alone else {}
        assert told["tool_choice"] == {**expected, **more}

    def test_are_called_one_by_one_without_a_choice_as_well(self) -> None:
        told = spelled(tools=[function("weather")], parallel_tool_calls=False)

        assert told["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}

    def test_are_those_that_are_allowed(self) -> None:
        allowed = {"mode": "required", "tools": [function("time")]}

        told = spelled(
            tools=[function("weather"), function("time")],
            tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        )

        assert [tool["name"] for tool in told["tools"]] == ["time"]
        assert told["tool_choice"] == {"type": "any"}

    @pytest.mark.parametrize("choice", ["auto", "none", None])
    def test_need_no_choice_where_there_are_none(self, choice: str | None) -> None:
        assert "tool_choice" not in spelled(tools=[], tool_choice=choice, parallel_tool_calls=False)

    @pytest.mark.parametrize(
        ("body", "loc"),
        [
            ({"tool_choice": "required"}, ("tool_choice",)),
            ({"tool_choice": function("a")}, ("tool_choice",)),
            ({"tools": {}}, ("tools",)),
            ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, ("tools", 0, "type")),
            ({"tools": [{"type": "function"}]}, ("tools", 0, "function")),
            ({"tools": [function("a")], "tool_choice": "any"}, ("tool_choice",)),
            (
                {"tools": [function("a")], "tool_choice": {"type": "custom"}},
                ("tool_choice", "type"),
            ),
        ],
    )
    def test_are_refused_where_they_cannot_be_told(
        self, body: dict[str, object], loc: tuple[str | int, ...]
    ) -> None:
        assert refused(**body) == loc


class TestWords:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [(0, 0), (0.3, 0.3), (1, None), (1.0, None), (1.7, None), (None, None)],
    )
    @pytest.mark.parametrize("name", ["temperature", "top_p"])
    def test_are_chosen_as_asked_and_defaults_are_not_told(
        self, name: str, given: float | None, expected: float | None
    ) -> None:
        assert spelled(**{name: given}).get(name) == expected

    @pytest.mark.parametrize("given", [True, "0.5", [1]])
    def test_are_chosen_by_numbers(self, given: object) -> None:
        assert refused(temperature=given) == ("temperature",)

    @pytest.mark.parametrize(
        ("given", "expected"),
        [("a", ["a"]), (["a", "b"], ["a", "b"]), ("", None), ([], None), (None, None)],
    )
    def test_end_where_asked(self, given: object, expected: list[str] | None) -> None:
        assert spelled(stop=given).get("stop_sequences") == expected


class TestThought:
    @pytest.mark.parametrize(
        ("effort", "expected"),
        [("minimal", "low"), ("low", "low"), ("high", "high"), ("max", "max")],
    )
    def test_takes_the_effort_that_is_asked(self, effort: str, expected: str) -> None:
        told = spelled(reasoning_effort=effort)

        assert told["thinking"] == {"type": "adaptive"}
        assert told["output_config"] == {"effort": expected}

    def test_is_left_off_when_none_is_asked(self) -> None:
        told = spelled(reasoning_effort="none")

        assert told["thinking"] == {"type": "disabled"}
        assert "output_config" not in told

    def test_is_what_the_caller_says_in_anthropics_words(self) -> None:
        told = spelled(
            reasoning_effort="low",
            thinking={"type": "disabled"},
            output_config={"effort": "xhigh"},
        )

        assert (told["thinking"], told["output_config"]) == (
            {"type": "disabled"},
            {"effort": "xhigh"},
        )

    @pytest.mark.parametrize("effort", ["huge", 3, ["low"]])
    def test_knows_no_other_effort(self, effort: object) -> None:
        assert refused(reasoning_effort=effort) == ("reasoning_effort",)


class TestForms:
    def test_are_given_by_a_schema(self) -> None:
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
        wanted = {"name": "answer", "strict": True, "schema": schema}

        told = spelled(
            response_format={"type": "json_schema", "json_schema": wanted}, reasoning_effort="low"
        )

        assert told["output_config"] == {
            "effort": "low",
            "format": {"type": "json_schema", "schema": schema},
        }

    def test_are_text_without_one(self) -> None:
        assert "output_config" not in spelled(response_format={"type": "text"})

    @pytest.mark.parametrize(
        ("given", "loc"),
        [
            ("json", ()),
            ({"type": "json_object"}, ()),
            ({"type": "json_schema"}, ("json_schema",)),
            ({"type": "json_schema", "json_schema": {}}, ("json_schema", "schema")),
        ],
    )
    def test_are_refused_without_a_schema(self, given: object, loc: tuple[str | int, ...]) -> None:
        assert refused(response_format=given) == ("response_format", *loc)


class TestWhoCalls:
    def test_is_told_by_the_stabler_of_two_names(self) -> None:
        assert spelled(user="u")["metadata"] == {"user_id": "u"}
        assert spelled(user="u", safety_identifier="s")["metadata"] == {"user_id": "s"}

    @pytest.mark.parametrize(
        ("given", "expected"), [("auto", "auto"), ("default", "standard_only")]
    )
    def test_has_a_tier(self, given: str, expected: str) -> None:
        assert spelled(service_tier=given)["service_tier"] == expected

    @pytest.mark.parametrize("given", ["flex", "priority", 1])
    def test_has_no_other_tier(self, given: object) -> None:
        assert refused(service_tier=given) == ("service_tier",)


class TestWhatCannotBeSaid:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("n", 2),
            ("seed", 0),
            ("logprobs", True),
            ("top_logprobs", 3),
            ("frequency_penalty", 0.5),
            ("presence_penalty", -1),
            ("logit_bias", {"50256": -100}),
            ("modalities", ["text", "audio"]),
            ("audio", {"voice": "alloy"}),
            ("functions", [{"name": "a"}]),
            ("function_call", "auto"),
            ("store", True),
            ("verbosity", "low"),
            ("web_search_options", {}),
            ("moderation", {"model": "m"}),
        ],
    )
    def test_is_refused_by_name_and_never_left_out(self, name: str, value: object) -> None:
        assert refused(**{name: value}) == (name,)

    def test_is_no_trouble_where_it_asks_for_nothing(self) -> None:
        told = spelled(
            n=1,
            seed=None,
            logprobs=False,
            top_logprobs=0,
            frequency_penalty=0.0,
            presence_penalty=0,
            logit_bias={},
            modalities=["text"],
            store=False,
            verbosity="medium",
            metadata={"job": "1"},
            prompt_cache_key="k",
            prediction={"type": "content", "content": "x"},
            stream_options={"include_usage": True},
        )

        assert told == {"model": "claude", "max_tokens": 100, "messages": [TURN]}

    def test_is_a_system_in_two_places(self) -> None:
        messages = [{"role": "system", "content": "a"}, *HELLO]

        assert refused(messages=messages, system="b") == ("system",)
