"""Routes as they are after inclusion: their full paths, and what they ask for."""

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.types import Scope

from maas.shared.interface.security import Requirement

UNMATCHED = "unmatched"


def route_template(scope: Scope) -> str:
    """Tell the full path template of the route a request went to, for labels and keys.

    FastAPI keeps included routes as they were written and adds the prefix in a context beside them.
    """
    context = scope.get("fastapi", {}).get("effective_route_context")
    if context is not None:
        included: str = (context.starlette_route or context).path_format
        return included
    route = scope.get("route")
    template: str = getattr(route, "path_format", UNMATCHED)
    return template


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFacts:
    """One route under its full path as OpenAPI writes it; no `permissions` if it is public."""

    method: str
    path: str
    context: RouteContext
    permissions: frozenset[str]


def walk_routes(app: FastAPI) -> Iterator[RouteFacts]:
    """List every method of every route an application serves."""
    for context in iter_route_contexts(app.routes):
        if context.path_format is None:
            continue
        permissions: frozenset[str] = frozenset()
        if isinstance(context.original_route, APIRoute):
            permissions = frozenset(_permissions(context.dependant))
        for method in sorted(context.methods or ()):
            yield RouteFacts(
                method=method, path=context.path_format, context=context, permissions=permissions
            )


def _permissions(dependant: Dependant) -> Iterator[str]:
    if isinstance(dependant.call, Requirement):
        yield dependant.call.permission
    for dependency in dependant.dependencies:
        yield from _permissions(dependency)
