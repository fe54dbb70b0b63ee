"""Tools as a model understands them: by its template, or told in the prompt."""

import json
from typing import Any

import pytest

from maas.inference.application.runtime_ports import ModelFacts, RuntimeRequestError
from maas.inference.application.runtime_requests import Plan, plan

MESSAGES = [{"role": "user", "content": "Hello"}]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add up.",
        "parameters": {
            "type": "object",
            "properties": {"to": {"$ref": "#/$defs/Number"}},
            "$defs": {"Number": {"type": "integer"}},
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "now"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"to":1}'}}
CALLED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "2"}
KNOWS_NONE = ModelFacts(takes_system=True)
KNOWS_TOOLS = ModelFacts(takes_tools=True)


def planned(facts: ModelFacts = KNOWS_NONE, **more: Any) -> Plan:
    return plan("chat", {"messages": MESSAGES, "tools": [ADD, NOW], **more}, facts)


def asked(facts: ModelFacts = KNOWS_NONE, **more: Any) -> Any:
    return planned(facts, **more).shares[0].body


def schema_of(body: Any) -> Any:
    return body["response_format"]["json_schema"]["schema"]


def names_of(body: Any) -> list[str]:
    replies = schema_of(body)["anyOf"]
    return [each["properties"].get("name", {"const": "(text)"})["const"] for each in replies]


class TestTemplateThatKnowsTools:
    def test_is_given_them_as_they_came(self) -> None:
        body = asked(KNOWS_TOOLS, tool_choice="auto")

        assert body["tools"] == [ADD, NOW]
        assert body["tool_choice"] == "auto"
        assert not planned(KNOWS_TOOLS).is_in_json

    def test_is_given_the_named_one_alone_for_llama_cpp_reads_no_names(self) -> None:
        body = asked(KNOWS_TOOLS, tool_choice=NAMED)

        assert body["tools"] == [NOW]
        assert body["tool_choice"] == "required"


class TestTemplateThatKnowsNone:
    @pytest.mark.parametrize(
        ("choice", "names"),
        [
            (None, ["add", "now", "(text)"]),
            ("auto", ["add", "now", "(text)"]),
            ("required", ["add", "now"]),
            (NAMED, ["now"]),
        ],
    )
    def test_replies_with_a_call_or_where_it_may_a_text(
        self, choice: object, names: list[str]
    ) -> None:
        body = asked(tool_choice=choice)

        assert names_of(body) == names
        assert not body.keys() & {"tools", "tool_choice"}
        assert planned(tool_choice=choice).is_in_json

    def test_is_told_of_them_in_words(self) -> None:
        first, second = asked()["messages"]

        assert first["role"] == "system"
        assert json.dumps(ADD["function"], separators=(",", ":")) in first["content"]
        assert [second] == MESSAGES

    def test_keeps_what_the_system_was_told(self) -> None:
        first, _ = asked(messages=[{"role": "system", "content": "Be kind."}, *MESSAGES])[
            "messages"
        ]

        assert first["content"].startswith("Be kind.\n\nYou can call")

    def test_is_told_by_the_user_where_it_knows_no_system(self) -> None:
        (only,) = asked(ModelFacts())["messages"]

        assert only["role"] == "user"
        assert only["content"].endswith("\n\nHello")

    def test_calls_by_the_schema_of_each_whose_references_still_lead_there(self) -> None:
        defined = schema_of(asked())["$defs"]

        assert defined["add"]["properties"]["to"] == {"$ref": "#/$defs/add/$defs/Number"}
        assert defined["now"] == {
            "type": "object",
            "properties": {},
            "additionalProperties": False,
        }

    def test_reads_calls_and_results_as_turns_of_talk(self) -> None:
        more = {"role": "user", "content": [{"type": "text", "text": "And on?"}]}

        body = asked(tools=None, messages=[*MESSAGES, CALLED, RESULT, RESULT, more])

        assert body["messages"] == [
            *MESSAGES,
            {"role": "assistant", "content": '{"name": "add", "arguments": {"to":1}}'},
            {"role": "user", "content": "Result of add: 2\nResult of add: 2\nAnd on?"},
        ]
        assert "response_format" not in body

    def test_is_not_told_of_tools_that_it_must_not_call(self) -> None:
        body = asked(tool_choice="none", stop=["."])

        assert body["messages"] == MESSAGES
        assert not body.keys() & {"tools", "tool_choice", "response_format"}

    def test_leaves_what_users_said_apart(self) -> None:
        body = asked(tool_choice="none", messages=[*MESSAGES, *MESSAGES])

        assert body["messages"] == [*MESSAGES, *MESSAGES]


def function(**more: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "add", **more}}]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": ["add"]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "add"}}]}, "tools"),
        ({"tools": function(name='a"b')}, "tools"),
        ({"tools": function() * 2}, "tools"),
        ({"tools": function(parameters={"type": "string"})}, "tools"),
        ({"tools": function(parameters=[1])}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice"),
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "add"}]}, "functions"),
        ({"stop": ["."]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [*MESSAGES, RESULT]}, "messages"),
        ({"messages": [*MESSAGES, {**CALLED, "tool_calls": [{"id": "c1"}]}]}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused(more: dict[str, Any], param: str) -> None:
    with pytest.raises(RuntimeRequestError) as refused:
        planned(**more)

    assert refused.value.loc == (param,)
