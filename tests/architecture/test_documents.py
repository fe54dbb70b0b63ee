"""The READMEs and the tour say the same where they must, and all links lead somewhere."""

import re
from pathlib import Path

from tests.architecture.inspection import ROOT

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)(?P<path>[^)#\s]+)")
_COMMANDS = re.compile(r"```(?:bash|sh|console)\n.*?```", re.DOTALL)


def sections(page: Path) -> dict[str, str]:
    """Read the text of each section, its links as they are seen from the project's folder."""
    found = {}
    for part in re.split(r"(?m)^## ", page.read_text(encoding="utf-8"))[1:]:
        title, _, text = part.partition("\n")
        found[title] = _LINK.sub(lambda link: f"]({_seen_from_root(page, link['path'])}", text)
    return found


def _seen_from_root(page: Path, path: str) -> str:
    target = (page.parent / path).resolve()
    return str(target.relative_to(ROOT)) if target.is_relative_to(ROOT) else path


def dead_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [
        f"{page.name}: {link['path']}"
        for link in _LINK.finditer(text)
        if not (page.parent / link["path"]).exists()
    ]


def test_what_readme_and_tour_both_have_is_the_same() -> None:
    readme, tour = sections(ROOT / "README.md"), sections(ROOT / "docs" / "tour.md")
    both = readme.keys() & tour.keys()

    assert [title for title in both if readme[title].strip() != tour[title].strip()] == []
    assert {"Two minutes", "Call a model", "Prove it"} <= both


def test_the_chinese_readme_has_the_commands_of_the_english_one() -> None:
    english, chinese = sections(ROOT / "README.md"), sections(ROOT / "README.zh-CN.md")

    assert [_COMMANDS.findall(text) for text in chinese.values()] == [
        _COMMANDS.findall(text) for text in english.values()
    ]
    assert sum(len(_COMMANDS.findall(text)) for text in english.values()) > 10


def test_no_link_is_dead() -> None:
    pages = [ROOT / "README.md", ROOT / "README.zh-CN.md", *(ROOT / "docs").rglob("*.md")]

    assert [link for page in pages for link in dead_links(page)] == []
    assert len(pages) > 60


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("See [this](gone.md), [that](page.md#here) and [them](https://example.com).\n")

    assert dead_links(page) == ["page.md: gone.md"]
