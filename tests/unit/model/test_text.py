"""What may be a name, a version, a path, a text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.model.domain.file import MAX_PATH_CHARS, FilePath, InvalidFilePathError
from maas.model.domain.text import (
    Description,
    InvalidModelNameError,
    InvalidTextError,
    InvalidVersionNameError,
    Label,
    ModelName,
    Reason,
    VersionName,
)

# Composed, so many marks take minutes.
MARKS = pytest.param("a" + "\u0315\u0300" * 200_000, id="marks")


class TestModelName:
    @pytest.mark.parametrize(
        "text",
        ["a", "org/name", "org/name:tag", "a/b/c:7b-q4_k.m", "公司/模型:一", "a.b+c", "x" * 200],
    )
    def test_takes_names_people_use(self, text: str) -> None:
        assert str(ModelName(text)) == text

    @pytest.mark.parametrize(
        "text",
        ["", " ", "a b", "/a", "a/", "a//b", "a:", ":a", "a:b:c", "a:b/c", ".a", "a.", "-a", "a@b",
         "a\n", "a\u202eb", "\ud800", "x" * 201, MARKS],
    )  # fmt: skip
    def test_refuses_others(self, text: str) -> None:
        with pytest.raises(InvalidModelNameError):
            ModelName(text)

    def test_one_look_has_one_spelling(self) -> None:
        assert ModelName("cafe\u0301") == ModelName("café")

    @given(st.text(max_size=210))
    def test_what_it_takes_is_plain(self, text: str) -> None:
        try:
            name = str(ModelName(text))
        except InvalidModelNameError:
            return
        assert 1 <= len(name) <= 200
        assert unicodedata.is_normalized("NFC", name)
        assert name.isprintable()
        assert not set(name) & set(" \\?#%&\"'<>")
        assert ModelName(name) == ModelName(text)


class TestVersionName:
    @pytest.mark.parametrize("text", ["1", "1.0.0", "2026-11-21", "v1+cpu_q4", "x" * 64, "..."])
    def test_takes_versions_people_use(self, text: str) -> None:
        assert str(VersionName(text)) == text

    @pytest.mark.parametrize("text", ["", ".", "..", "a b", "a/b", "一", "x" * 65, "1\n"])
    def test_refuses_others(self, text: str) -> None:
        with pytest.raises(InvalidVersionNameError):
            VersionName(text)


class TestFilePath:
    @pytest.mark.parametrize(
        "text", ["a", "a/b.gguf", ".hidden", "a/..b", "数据/一 二.bin", "a" * 255, "a" * 255 + "/b"]
    )
    def test_takes_relative_paths(self, text: str) -> None:
        assert str(FilePath(text)) == text

    @pytest.mark.parametrize(
        "text",
        ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", "a\\b", "a\0b",
         "a\nb", "a\x7fb", "a\u202eb", "\udc80", " a", "a /b", "a" * 256, "一" * 86,
         "a/" * 256 + "a"],
    )  # fmt: skip
    def test_refuses_others(self, text: str) -> None:
        with pytest.raises(InvalidFilePathError):
            FilePath(text)

    def test_tells_its_name(self) -> None:
        assert FilePath("a/b/c.bin").name == "c.bin"

    def test_the_two_spellings_of_one_name_are_one_path(self) -> None:
        assert FilePath("cafe\u0301") == FilePath("café")

    @given(st.text(alphabet=st.characters() | st.sampled_from("./\\ \n"), max_size=520))
    def test_what_it_takes_stays_inside_a_folder(self, text: str) -> None:
        try:
            path = str(FilePath(text))
        except InvalidFilePathError:
            return
        segments = path.split("/")
        assert 1 <= len(path) <= MAX_PATH_CHARS
        assert not {"", ".", ".."} & set(segments)
        assert all(len(segment.encode()) <= 255 for segment in segments)
        assert not any(unicodedata.category(char) in {"Cc", "Cs", "Cf"} for char in path)
        assert "\\" not in path
        assert FilePath(path) == FilePath(text)


class TestTexts:
    def test_a_description_has_lines(self) -> None:
        assert str(Description(" one\n\ttwo ")) == "one\n\ttwo"

    @pytest.mark.parametrize("text", ["", "  ", "x" * 4001, "a\0b", "\ud800", "a\u202eb"])
    def test_a_description_can_be_seen(self, text: str) -> None:
        with pytest.raises(InvalidTextError):
            Description(text)

    @pytest.mark.parametrize("text", ["", "x" * 101, "a\nb"])
    def test_a_label_is_one_line(self, text: str) -> None:
        with pytest.raises(InvalidTextError):
            Label(text)

    @pytest.mark.parametrize("text", ["", "x" * 501, "a\nb"])
    def test_a_reason_is_one_line(self, text: str) -> None:
        with pytest.raises(InvalidTextError):
            Reason(text)

    def test_errors_do_not_repeat_what_was_sent(self) -> None:
        with pytest.raises(InvalidTextError) as caught:
            Label("secret\nword")

        assert "secret" not in caught.value.detail
