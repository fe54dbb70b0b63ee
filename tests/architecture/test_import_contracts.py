"""Each import contract breaks when somebody plants what it forbids."""

import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.inspection import ROOT, SOURCE

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True, slots=True)
class Violation:
    """An import that must not be, in a module made for it."""

    contract: str
    module: str
    imports: str


VIOLATIONS = [
    Violation("layers", "maas.user.domain.planted", "maas.user.application"),
    Violation("layers", "maas.user.helpers", "maas.user.public"),
    Violation("shared-layers", "maas.shared.domain.planted", "maas.shared.infrastructure"),
    Violation("context-order", "maas.audit.application.planted", "maas.user.public"),
    Violation("command-order", "maas.commands.planted", "maas.commands.keys"),
    Violation("audit-internals", "maas.model.application.planted", "maas.audit.domain"),
    Violation("user-internals", "maas.model.application.planted", "maas.user.domain"),
    Violation("model-internals", "maas.embedded.planted", "maas.model.domain"),
    Violation("inference-internals", "maas.embedded.planted", "maas.inference.domain"),
    Violation("pure-domain", "maas.model.domain.planted", "sqlalchemy"),
    Violation("application-knows-no-framework", "maas.model.application.planted", "fastapi"),
]


def contracts() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        document = tomllib.load(file)
    return [contract["id"] for contract in document["tool"]["importlinter"]["contracts"]]


def lint_imports(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            *("--config", ROOT / "pyproject.toml"),
            *("--contract", contract),
            "--no-cache",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # The folder of the working directory is looked in first, before the installed package.
        env={"PYTHONPATH": str(folder), "COLUMNS": "200"},
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copytree(SOURCE, tmp_path / "maas", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda v: f"{v.contract}:{v.module}")
def test_a_planted_import_breaks_its_contract(package: Path, violation: Violation) -> None:
    planted = package / Path(*violation.module.split(".")).with_suffix(".py")
    planted.write_text(f"import {violation.imports}\n", encoding="utf-8")

    result = lint_imports(package, violation.contract)

    assert result.returncode == 1, result.stdout + result.stderr
    assert violation.module.rsplit(".", 1)[-1] in result.stdout
    assert "BROKEN" in result.stdout


def test_every_contract_has_a_planted_violation() -> None:
    assert {violation.contract for violation in VIOLATIONS} == set(contracts())
