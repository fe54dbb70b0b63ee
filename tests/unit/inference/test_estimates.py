"""Never fewer than a tokenizer finds, whatever the text; and likely about as many."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

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
        ("text", "tokens"), [("", 0), ("a", 1), ("four words of prose", 5), ("你好", 2), ("né", 1)]
    )
    def test_prose_has_four_characters_a_token_and_wide_ones_one(
        self, text: str, tokens: int
    ) -> None:
        assert count_text(text) == tokens
