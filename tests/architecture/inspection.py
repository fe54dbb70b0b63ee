"""Facts about the code that the architecture tests judge and `.ci/docs.py` writes down.

Routes are read from a built application, the rest from the source text, so that a violation can be
planted in either without touching the package.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from typing_extensions import override

import maas
from maas.shared.domain.call import ACTION_ATTRIBUTE
from maas.shared.domain.errors import MaasError
from maas.shared.infrastructure.setting_sections import PREFIX
from maas.shared.interface.problems import status_of
from maas.shared.interface.routes import RouteFacts
from maas.shared.interface.security import PUBLIC_ROUTES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "maas"
KEBAB_CASE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
READING = frozenset({"GET", "HEAD", "OPTIONS"})

_SCOPE_OPENERS = frozenset({"audited", "audit_scope", "acting_as_operator"})
_TASK_DECORATORS = frozenset({"shared_task", "task"})
_LOOKED_FOR = (
    *(ast.Assign, ast.Call, ast.Dict, ast.Import, ast.ImportFrom),
    *(ast.FunctionDef, ast.AsyncFunctionDef),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere in the source; the path is relative to the package's parent."""

    path: str
    line: int

    @override
    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def is_public(route: RouteFacts) -> bool:
    # The routes of FastAPI itself (`/docs`) list HEAD, which is served wherever there is a GET.
    return (route.method.replace("HEAD", "GET"), route.path) in PUBLIC_ROUTES


def is_mutating(route: RouteFacts) -> bool:
    return route.method not in READING


def action_of(route: RouteFacts) -> str | None:
    return getattr(route.context.endpoint, ACTION_ATTRIBUTE, None)


def unwalked_routes(app: FastAPI) -> list[str]:
    """List mounted applications and websockets, whose permissions nobody could check."""
    return [
        f"{route.path or '?'} ({type(route.original_route).__name__})"
        for route in iter_route_contexts(app.routes)
        if not route.methods
    ]


def response_models(route: RouteFacts) -> list[type[BaseModel]]:
    return list(_models_in(getattr(route.context, "response_model", None)))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def optional_fields(model: type[BaseModel]) -> list[str]:
    """Name the fields of a model, and of the models inside it, that a client need not expect."""
    found: list[str] = []
    waiting, seen = [model], {model}
    while waiting:
        current = waiting.pop()
        for name, field in current.model_fields.items():
            if not field.is_required():
                found.append(f"{current.__name__}.{name}")
            inner = set(_models_in(field.annotation)) - seen
            seen |= inner
            waiting.extend(inner)
    return sorted(found)


def import_everything() -> None:
    """Import every module of the package, so that all its classes exist."""
    for module in pkgutil.walk_packages(maas.__path__, "maas."):
        importlib.import_module(module.name)


@dataclass(frozen=True, slots=True, order=True)
class ErrorFacts:
    """A code a client may meet."""

    status: int
    code: str
    title: str
    meaning: str


def list_errors() -> list[type[MaasError]]:
    """List every refusal of the package, its kinds included."""
    import_everything()
    return sorted(
        (error for error in _subclasses(MaasError) if error.__module__.startswith("maas.")),
        key=lambda error: (error.code, error.__qualname__),
    )


def _subclasses(parent: type[MaasError]) -> set[type[MaasError]]:
    children = set(parent.__subclasses__())
    return children.union(*(_subclasses(child) for child in children))


def list_problems() -> list[ErrorFacts]:
    """List every code that can stand in a problem document."""
    facts = {
        ErrorFacts(status_of(error), error.code, error.title, _first_sentence(error))
        for error in list_errors()
    }
    known = {each.code for each in facts}
    facts |= {each for each in _written_out_problems(SOURCE) if each.code not in known}
    return sorted(facts)


def _first_sentence(error: type[MaasError]) -> str:
    text = (error.__doc__ or "").strip().split("\n\n")[0]
    return re.sub(r"\s*\(\d+\)\.$", ".", " ".join(text.split()))


def _written_out_problems(folder: Path) -> Iterator[ErrorFacts]:
    """Find problems that the edge spells out, for what no error class stands for."""
    for _place, node in _nodes(folder):
        match node:
            case ast.Call(func=ast.Name(id="Problem" | "_Answer")):
                values = {k.arg: k.value for k in node.keywords}
                parts = [
                    *node.args,
                    *(values.get(n) for n in ("status", "code", "title", "detail")),
                ]
                yield from _problem_from([part for part in parts if part is not None])
            case ast.Dict():
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(value, ast.Tuple) and key is not None:
                        yield from _problem_from([key, *value.elts])
            case _:
                continue


def _problem_from(parts: list[ast.expr]) -> Iterator[ErrorFacts]:
    values = [part.value for part in parts if isinstance(part, ast.Constant)]
    match values:
        case [int(status), str(code), str(title), str(detail)] if KEBAB_CASE.fullmatch(code):
            yield ErrorFacts(status, code, title, detail)
        case _:
            return


def setting_names(section: type[BaseModel], prefix: str = PREFIX) -> list[str]:
    """Name the environment variable of each field, sections included."""
    names: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += setting_names(inner, f"{prefix}{name.upper()}__")
        else:
            names.append(f"{prefix}{name.upper()}")
    return names


def list_actions(folder: Path = SOURCE) -> dict[str, list[Place]]:
    """Find every action the source names: on a decorator, a scope or a recorder."""
    actions: dict[str, list[Place]] = {}
    for place, node in _calls(folder):
        action = _action_of(node)
        if action is not None:
            actions.setdefault(action, []).append(place)
    for place, name, value in _constants(folder):
        if name.endswith("_ACTION"):
            actions.setdefault(value, []).append(place)
    return actions


def _action_of(node: ast.Call) -> str | None:
    name = _name_of(node.func)
    candidates: list[ast.expr] = []
    if name in _SCOPE_OPENERS:
        candidates = [*node.args, *(k.value for k in node.keywords if k.arg == "action")]
    elif name == "record":
        candidates = [k.value for k in node.keywords if k.arg == "action"]
    for candidate in candidates:
        if isinstance(candidate, ast.Constant) and isinstance(candidate.value, str):
            return candidate.value
    return None


def session_commits(folder: Path = SOURCE) -> list[Place]:
    """Find where a database session is committed, or begun in a way that commits at its end."""
    return [
        place
        for place, node in _calls(folder)
        if isinstance(node.func, ast.Attribute)
        and node.func.attr in {"commit", "begin"}
        and "session" in (_name_of(node.func.value) or "").lower()
    ]


def unnamed_tasks(folder: Path = SOURCE) -> list[Place]:
    """Find Celery tasks that leave their name to the module they happen to lie in."""
    found = []
    for place, node in _nodes(folder):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            is_call = isinstance(decorator, ast.Call)
            name = _name_of(decorator.func if isinstance(decorator, ast.Call) else decorator)
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            is_named = is_call and any(keyword.arg == "name" for keyword in keywords)
            if name in _TASK_DECORATORS and not is_named:
                found.append(place)
    return found


def imports_of(package: str, folder: Path) -> list[Place]:
    """Find imports of a package anywhere below a folder."""
    found = []
    for place, node in _nodes(folder):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.split(".")[0] == package for name in names):
            found.append(place)
    return found


def _calls(folder: Path) -> Iterator[tuple[Place, ast.Call]]:
    for place, node in _nodes(folder):
        if isinstance(node, ast.Call):
            yield place, node


def _constants(folder: Path) -> Iterator[tuple[Place, str, str]]:
    for place, node in _nodes(folder):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield place, node.targets[0].id, node.value.value


def _nodes(folder: Path) -> Iterator[tuple[Place, ast.AST]]:
    for path in sorted(folder.rglob("*.py")):
        name = str(path.relative_to(folder.parent))
        for node in _walk(path, path.stat().st_mtime_ns):
            yield Place(name, getattr(node, "lineno", 0)), node


@cache
def _walk(path: Path, _changed_at: int) -> list[ast.AST]:
    """Parse a file once: each of these tests looks through all the source, for a few kinds."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, _LOOKED_FOR)]


def _name_of(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=name):
            return name
        case _:
            return None
