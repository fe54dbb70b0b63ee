"""Finds a route by a look-up: FastAPI asks every route of every router in turn, twice.

Routes are indexed by path once. What the index does not find goes to FastAPI's own router, which
knows 404 and everything unusual.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy

from fastapi import APIRouter
from fastapi.routing import APIRoute
from fastapi.utils import generate_unique_id
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Mount, Route, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

INDEXED_SEGMENTS = 3

_Pattern = tuple[str | None, ...]
"""The first segments of a path; `None` stands for a parameter."""


def under(prefix: str, routers: Iterable[APIRouter]) -> list[BaseRoute]:
    """List the routes of routers with a prefix before their paths.

    `include_router` would do that and more, and look into every function three times again: half
    a second of each start.
    """
    return [_moved(route, prefix) for router in routers for route in router.routes]


def _moved(route: BaseRoute, prefix: str) -> BaseRoute:
    if not isinstance(route, APIRoute):
        message = f"{route!r} is none of a plain router's routes: list its router instead"
        raise TypeError(message)
    moved = copy(route)
    moved.path = prefix + route.path
    moved.path_regex, moved.path_format, moved.param_convertors = compile_path(moved.path)
    moved.unique_id = route.operation_id or generate_unique_id(moved)
    return moved


class RouteIndex:
    """An ASGI application over routes: exact paths first, then those that share the first segments.

    Among the routes of one path the earlier one wins, as in FastAPI. What has a GET has a HEAD: the
    same route runs, and its body goes nowhere.
    """

    def __init__(self, routes: Sequence[BaseRoute], *, otherwise: ASGIApp) -> None:
        """Index plain routes.

        Raises:
            TypeError: there is a whole router among them.
        """
        for route in routes:
            if not isinstance(route, Route | Mount):
                message = f"{route!r} is no route: add routers by `under(prefix, routers)`"
                raise TypeError(message)
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
        # Not `handle`, which knows only the methods that were declared, and asks again for them.
        if scope["method"] == "HEAD":
            await route.app(scope, receive, _without_body(send))
        else:
            await route.app(scope, receive, send)

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
