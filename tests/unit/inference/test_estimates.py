"""Never fewer than a tokenizer finds, whatever the text; and likely about as many."""

import json
import time
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from maas.inference.domain.asking import read_ask
from maas.inference.domain.estimates import TOKENS_A_PART, count_text, most_input

VOCABULARY = Path("tokenizers") / "l2_supercat_tokenizer_config.json"
MEBIBYTE = 1024 * 1024

texts = st.text(max_size=200)
schemas = st.recursive(
    st.one_of(texts, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def llama() -> Tokenizer:
    """Llama's vocabulary, which spells what it does not know byte by byte."""
    found = find_spec("wordllama")
    assert found is not None
    assert found.origin is not None
    return Tokenizer.from_file(str(Path(found.origin).parent / VOCABULARY))


def chat(*contents: object, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": content} for content in contents]
    return {"model": "gemma", "messages": messages, **more}


class TestMostInput:
    @given(contents=st.lists(texts, max_size=5))
    def test_a_chat_has_no_more_in_a_models_template(
        self, llama: Tokenizer, contents: list[str]
    ) -> None:
        spelled = "".join(
            f"<start_of_turn>user\n{text.strip()}<end_of_turn>\n" for text in contents
        )

        tokens = llama.encode(f"<bos>{spelled}<start_of_turn>model\n").ids

        assert len(tokens) <= most_input(chat(*contents))

    @given(schema=schemas)
    def test_nor_do_tools_that_a_template_spells_out(
        self, llama: Tokenizer, schema: object
    ) -> None:
        tools = [{"type": "function", "function": {"name": "find", "parameters": schema}}]

        tokens = llama.encode(json.dumps(tools, ensure_ascii=False)).ids

        assert len(tokens) <= most_input(chat("Hello", tools=tools))

    @pytest.mark.parametrize(
        "text", ["hello " * 174_763, "你好" * 180_000, "\x00\x01" * 600_000, "ﷺ" * 100_000]
    )
    def test_nor_does_a_prompt_of_over_a_mebibyte(self, llama: Tokenizer, text: str) -> None:
        if len(text.encode()) < MEBIBYTE:
            # What a model that spells it out reads.
            assert most_input(chat(text)) >= 18 * len(text)
        else:
            part = llama.encode(text[: len(text) // 20]).ids

            assert 20 * len(part) <= most_input(chat(text))

    def test_a_text_that_looks_like_data_is_text(self) -> None:
        assert most_input(chat("data:" + "x" * MEBIBYTE)) > MEBIBYTE

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * MEBIBYTE}"}},
            {"type": "image_url", "image_url": {"url": "https://pictures.test/cat.png"}},
            {"type": "input_audio", "input_audio": {"data": "A" * MEBIBYTE, "format": "wav"}},
            {"type": "file", "file": {"file_data": "A" * MEBIBYTE, "filename": "a.pdf"}},
        ],
    )
    def test_what_is_shown_or_played_counts_as_a_part(self, part: dict[str, object]) -> None:
        most = most_input(chat([{"type": "text", "text": "What is this?"}, part]))

        assert TOKENS_A_PART < most < TOKENS_A_PART + 1_000

    @pytest.mark.parametrize(
        "fields",
        [
            {"parameters": {"a": {"type": "file", "url": "word " * 200_000}}},
            {"parameters": {"a": {"type": "image_url", "image_url": "x" * MEBIBYTE}}},
            {"parameters": {"a": {"enum": [10**18] * 50_000}}},
            {"parameters": {"prompt": [10**18] * 50_000}},
        ],
    )
    def test_but_in_tools_it_is_spelled_out_like_all_else(self, fields: dict[str, object]) -> None:
        tools = [{"type": "function", "function": {"name": "f", **fields}}]

        assert most_input(chat("Hello", tools=tools)) > len(json.dumps(tools))

    def test_a_template_may_write_escapes_of_what_it_spells_out(self) -> None:
        tools = [{"type": "function", "function": {"description": '\x01"语\n' * 50_000}}]

        assert most_input(chat("Hello", tools=tools)) > len(json.dumps(tools))
        assert most_input(chat("语" * 50_000)) < 4 * 50_000

    @given(text=st.text(alphabet=st.characters(exclude_categories=[]), max_size=50))
    def test_nor_has_any_text_that_is_spelt_out_first(self, text: str) -> None:
        spelt = unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass")

        assert len(spelt) <= most_input({"prompt": text}) - most_input({"prompt": ""})

    @pytest.mark.parametrize("text", ["语" * 5_000_000, "ﷺ" * 300_000])
    def test_a_long_text_is_counted_in_no_time(self, text: str) -> None:
        begun = time.process_time()
        read_ask("chat", chat(text))

        # A loop over its characters, or over what they are spelt as, takes seconds.
        assert time.process_time() - begun < 0.6

    def test_what_a_part_says_beside_its_bytes_counts(self) -> None:
        hidden = {"type": "image_url", "image_url": {"url": "x", "detail": "y" * MEBIBYTE}}
        beside = {"type": "image_url", "image_url": {"url": "x"}, "text": "y" * MEBIBYTE}

        for part in (hidden, beside):
            assert most_input(chat([part])) > MEBIBYTE + TOKENS_A_PART

    def test_a_prompt_in_tokens_has_so_many(self) -> None:
        tokens = list(range(10_000, 11_000))

        assert 1_000 <= most_input({"model": "m", "input": tokens}) < 1_500
        assert 2_000 <= most_input({"model": "m", "input": [tokens, tokens]}) < 2_500

    def test_a_list_of_tokens_hides_no_text(self) -> None:
        assert most_input({"model": "m", "input": [1, 2, "x" * MEBIBYTE]}) > MEBIBYTE

    def test_any_depth_is_looked_into(self) -> None:
        body: dict[str, object] = {"content": "x" * 1_000}
        for _ in range(5_000):
            body = {"nested": [body]}

        assert most_input(body) > 1_000


class TestCountText:
    @pytest.mark.parametrize(
        ("text", "tokens"),
        [("", 0), ("a", 1), ("four words of prose", 5), ("你好", 2), ("né", 1), ("😀😀", 2)],
    )
    def test_prose_has_four_characters_a_token_and_wide_ones_one(
        self, text: str, tokens: int
    ) -> None:
        assert count_text(text) == tokens


class TestLikelyInput:
    """What is booked for a prompt that nobody counted."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"tools": [{"type": "function", "function": {"description": "word " * 4_000}}]},
            {"functions": [{"name": "f", "parameters": {"word " * 4_000: {}}}]},
            {"response_format": {"type": "json_schema", "schema": {"enum": ["word"] * 4_000}}},
            {"system": "word " * 4_000},
            {"messages": [{"role": "assistant", "tool_calls": [{"a": ["word " * 4_000]}]}]},
            {"messages": [{"role": "assistant", "function_call": {"arguments": "1234" * 4_000}}]},
        ],
    )
    def test_nothing_that_a_model_reads_is_free(self, fields: dict[str, object]) -> None:
        assert 4_000 <= read_ask("chat", {**chat("Hello"), **fields}).likely_input < 6_000

    def test_what_no_model_reads_is(self) -> None:
        beside = {"user": "x" * 999, "metadata": {"a": "b"}, "stop": ["x"], "temperature": 0.5}

        assert read_ask("chat", chat("Hello", **beside)).likely_input == 4 + 2

    @settings(max_examples=30)
    @given(body=st.dictionaries(st.sampled_from(["messages", "prompt", "tools", "x"]), schemas))
    def test_it_is_never_above_the_most(self, body: dict[str, object]) -> None:
        ask = read_ask("chat", {"model": "m", **body})

        assert 0 <= ask.likely_input <= ask.most_input
