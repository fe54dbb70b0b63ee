"""Finds a route by a look-up: FastAPI asks every route of every router in turn, twice.

Included routers are unfolded into plain routes once, then indexed by path. What the index does not
find goes to FastAPI's own router, which knows 404 and everything unusual.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from fastapi.datastructures import Default
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

INDEXED_SEGMENTS = 3

_Pattern = tuple[str | None, ...]
"""The first segments of a path; `None` stands for a parameter."""

_COPIED = (
    "status_code",
    "tags",
    "dependencies",
    "summary",
    "description",
    "response_description",
    "responses",
    "deprecated",
    "name",
    "methods",
    "operation_id",
    "response_model_include",
    "response_model_exclude",
    "response_model_by_alias",
    "response_model_exclude_unset",
    "response_model_exclude_defaults",
    "response_model_exclude_none",
    "include_in_schema",
    "response_class",
    "dependency_overrides_provider",
    "callbacks",
    "openapi_extra",
    "generate_unique_id_function",
    "strict_content_type",
)


def unfold(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """Turn included routers into routes under their full paths, in the same order."""
    unfolded: list[BaseRoute] = []
    for route in routes:
        contexts = list(iter_route_contexts([route]))
        is_included = any(context.original_route is not route for context in contexts)
        if is_included and all(isinstance(c.original_route, APIRoute) for c in contexts):
            unfolded.extend(map(_as_route, contexts))
        else:
            unfolded.append(route)
    return unfolded


def _as_route(context: RouteContext) -> APIRoute:
    options: dict[str, Any] = {name: getattr(context, name) for name in _COPIED}
    is_stream = context.is_json_stream or context.is_sse_stream
    # A stream's item type is read from the annotation again, which an explicit model would hide.
    options["response_model"] = Default(None) if is_stream else context.response_model
    make = cast("type[APIRoute]", type(context.original_route))
    return make(str(context.path), cast("Callable[..., Any]", context.endpoint), **options)


class RouteIndex:
    """An ASGI application over routes: exact paths first, then those that share the first segments.

    Among the routes of one path the earlier one wins, as in FastAPI. What has a GET has a HEAD: the
    same route runs, and its body goes nowhere.
    """

    def __init__(self, routes: Sequence[BaseRoute], *, otherwise: ASGIApp) -> None:
        self._otherwise = otherwise
        known = [route for route in routes if isinstance(route, Route)]
        dynamic = [route for route in known if route.param_convertors]
        self._exact: dict[str, dict[str, Route]] = {}
        for route in known:
            if not route.param_convertors:
                methods = self._exact.setdefault(route.path, {})
                for method in route.methods or ():
                    methods.setdefault(method, _winner(route, method, known))
        for methods in self._exact.values():
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])
        self._by_prefix: dict[tuple[str, ...], list[Route]] = {
            prefix: [route for route in dynamic if _may_match(_pattern(route), prefix)]
            for route in dynamic
            for prefix in _literal_prefixes(_pattern(route))
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # With a root path or telemetry on, FastAPI's router knows more than this one.
        if scope["type"] != "http" or scope.get("root_path") or "fastapi.telemetry" in scope:
            await self._otherwise(scope, receive, send)
            return
        route = self._find(scope)
        if route is None:
            self._refuse_other_methods(scope)
            await self._otherwise(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # Not `handle`, which knows only the methods that were declared.
            await route.app(scope, receive, _without_body(send))
        else:
            await route.handle(scope, receive, send)

    def _find(self, scope: Scope) -> Route | None:
        methods = self._exact.get(scope["path"])
        if methods is not None:
            route = methods.get(scope["method"])
            if route is not None and not route.param_convertors:
                scope["route"] = route
                scope["endpoint"] = route.endpoint
                scope["path_params"] = {}
                return route
        for route in self._candidates(scope["path"]):
            match, child_scope = route.matches(scope)
            if match is Match.FULL or (match is Match.PARTIAL and _is_head_of(route, scope)):
                scope.update(child_scope)
                return route
        return None

    def _candidates(self, path: str) -> Sequence[Route]:
        segments = tuple(path.split("/", INDEXED_SEGMENTS + 1)[1 : INDEXED_SEGMENTS + 1])
        while segments:
            found = self._by_prefix.get(segments)
            if found is not None:
                return found
            segments = segments[:-1]
        return ()

    def _refuse_other_methods(self, scope: Scope) -> None:
        allowed = set(self._exact.get(scope["path"], ()))
        for route in self._candidates(scope["path"]):
            if route.matches(scope)[0] is Match.PARTIAL:
                allowed.update(route.methods or ())
        if "GET" in allowed:
            allowed.add("HEAD")
        if allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})


def _is_head_of(route: Route, scope: Scope) -> bool:
    return scope["method"] == "HEAD" and "GET" in (route.methods or ())


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head


def _winner(route: Route, method: str, known: Sequence[Route]) -> Route:
    """Find the route declared first that takes this exact path, parameters or not."""
    return next(
        other
        for other in known
        if other is route
        or (method in (other.methods or ()) and other.path_regex.match(route.path))
    )


def _pattern(route: Route) -> _Pattern:
    segments = route.path_format.split("/")[1 : INDEXED_SEGMENTS + 1]
    return tuple(None if "{" in segment else segment for segment in segments)


def _literal_prefixes(pattern: _Pattern) -> Iterator[tuple[str, ...]]:
    prefix: tuple[str, ...] = ()
    for segment in pattern:
        if segment is None:
            return
        prefix = (*prefix, segment)
        yield prefix


def _may_match(pattern: _Pattern, prefix: tuple[str, ...]) -> bool:
    # A parameter may be a path of several segments, so whatever follows one may match.
    for index, literal in enumerate(prefix):
        if index >= len(pattern):
            return False
        if pattern[index] is None:
            return True
        if pattern[index] != literal:
            return False
    return True
