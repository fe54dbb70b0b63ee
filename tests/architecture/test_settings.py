"""`.env.template` and the settings say the same."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from maas.shared.infrastructure.setting_sections import PREFIX
from maas.shared.infrastructure.settings import Settings, load_settings
from maas.shared.infrastructure.signing_keys import generate_private_pem
from tests.architecture.inspection import ROOT, setting_names

_LINE = re.compile(r"^#?(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$", re.MULTILINE)
_SECRET = "template-tests-0123456789-abcdefghijklmnopqrstuvwxyz"

TEMPLATE = (ROOT / ".env.template").read_text(encoding="utf-8")


def documented(template: str) -> dict[str, str]:
    return {m["name"]: m["value"] for m in _LINE.finditer(template)}


def undocumented(template: str, settings: type[BaseModel] = Settings) -> list[str]:
    return sorted(set(setting_names(settings)) - documented(template).keys())


def unknown(template: str, settings: type[BaseModel] = Settings) -> list[str]:
    names = {name for name in documented(template) if name.startswith(PREFIX)}
    return sorted(names - set(setting_names(settings)))


def test_every_setting_is_in_the_template() -> None:
    assert undocumented(TEMPLATE) == []


def test_every_name_in_the_template_is_a_setting() -> None:
    assert unknown(TEMPLATE) == []


def test_every_line_has_a_comment_above() -> None:
    paragraphs = [p for p in re.split(r"\n\s*\n", TEMPLATE) if _LINE.search(p)]

    bare = [p for p in paragraphs if not p.startswith(("# ", "## "))]

    # The group of the first administrator is explained by the text above all three.
    assert [p for p in bare if "ADMIN_USERNAME" not in p] == []


def test_the_examples_are_settings_that_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in documented(TEMPLATE).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value or _SECRET)
        # A key is given in one way, and no example could hold one.
        if name.endswith(("_KEY_FILE", "_KEYS_FILE")):
            monkeypatch.delenv(name)
    # It is read at once, and no example lies on this disk.
    monkeypatch.delenv("MAAS_OUTGOING__CA_FILE")
    for name in ("MAAS_AUTH__PRIVATE_KEY", "MAAS_AUTH__PREVIOUS_KEY"):
        monkeypatch.setenv(name, generate_private_pem())

    settings = load_settings()

    assert settings.server.docs is True
    assert str(settings.bootstrap.admin_username) == "ada"


def test_the_values_shown_are_the_defaults() -> None:
    shown = {
        line["name"]: line["value"]
        for paragraph in re.split(r"\n\s*\n", TEMPLATE)
        if "xample" not in paragraph
        for line in _LINE.finditer(paragraph)
        if line["value"] and line["name"].startswith(PREFIX)
    }
    actual = defaults(Settings)

    assert shown == {name: actual[name] for name in shown}
    assert len(shown) > 30


def defaults(section: type[BaseModel], prefix: str = PREFIX) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= defaults(inner, f"{prefix}{name.upper()}__")
        elif isinstance(field.default, bool):
            found[f"{prefix}{name.upper()}"] = str(field.default).lower()
        else:
            found[f"{prefix}{name.upper()}"] = str(field.default)
    return found


class TestPlanted:
    def test_a_setting_missing_from_the_template_is_found(self) -> None:
        template = TEMPLATE.replace("#MAAS_DEBUG=false", "")

        assert undocumented(template) == ["MAAS_DEBUG"]

    def test_a_new_setting_is_found(self) -> None:
        class WithMore(Settings):
            colour: str = "blue"

        assert undocumented(TEMPLATE, WithMore) == ["MAAS_COLOUR"]

    def test_a_line_for_no_setting_is_found(self) -> None:
        assert unknown(TEMPLATE + "\n# Gone.\n#MAAS_OLD_NAME=1\n") == ["MAAS_OLD_NAME"]
