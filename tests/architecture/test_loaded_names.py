"""What is loaded by its name is there: neither mypy nor an import says so before it is needed."""

import ast
from collections.abc import Iterator
from pkgutil import resolve_name

import pytest

from tests.architecture.inspection import SOURCE

pytestmark = pytest.mark.timeout(60)

LOADERS = frozenset({"load", "resolve_name"})
MADE_WHEN_ASKED_FOR = frozenset({"maas.worker:app"})
"""Looking at it would read settings."""


def loaded_names(source: str) -> set[str]:
    """Name what is loaded, and what is then asked of modules, as `module:attribute`."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        name
        for each in ast.walk(ast.parse(source))
        if isinstance(each, functions)
        for name in _names_in(each)
    }


def _names_in(function: ast.AST) -> Iterator[str]:
    variables = dict(_assigned(function))
    for node in ast.walk(function):
        if (name := _loaded(node)) is not None:
            yield name
        if isinstance(node, ast.Attribute):
            held = node.value
            module = variables.get(held.id) if isinstance(held, ast.Name) else _loaded(held)
            if module is not None and ":" not in module:
                yield f"{module}:{node.attr}"


def _assigned(function: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for variable, each in pairs:
            if isinstance(variable, ast.Name) and (name := _loaded(each)) is not None:
                yield variable.id, name


def _loaded(node: ast.AST) -> str | None:
    """Tell the name that a call loads; one that is put together cannot be told."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return None
    if node.func.id not in LOADERS or not node.args:
        return None
    name = node.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def is_there(name: str) -> bool:
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_every_name_leads_somewhere() -> None:
    names = {
        name for path in SOURCE.rglob("*.py") for name in loaded_names(path.read_text("utf-8"))
    }

    assert len(names) > 50
    assert [name for name in sorted(names - MADE_WHEN_ASKED_FOR) if not is_there(name)] == []


def test_a_name_that_leads_nowhere_is_found() -> None:
    source = """
def work():
    first, module = 1, load("maas.bootstrap")
    module.open_nothing()
    load("maas.bootstrap").close_nothing()
    return resolve_name("maas.nowhere:at_all")
"""

    assert {name for name in loaded_names(source) if not is_there(name)} == {
        "maas.bootstrap:open_nothing",
        "maas.bootstrap:close_nothing",
        "maas.nowhere:at_all",
    }
