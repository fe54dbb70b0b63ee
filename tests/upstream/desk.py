"""Who may call, what he called, and what he gets: requests in, replies out, nothing on the wire."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from tests.upstream import anthropic_wire, openai_wire
from tests.upstream.ledger import Call, KeyStyle, Ledger, digest_of
from tests.upstream.replies import JSON, RefusedError, Reply, answer, dump
from tests.upstream.scripts import HONEST, Script, Scripts

MODELS: Final = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "claude-upstream")
BASES: Final = ("/v1", "/api/v1", "/openai/v1", "/compatible-mode/v1", "/openai", "/bare")
"""Where suppliers have their API; everything else is a wrong URL."""

HTML: Final = b"<!doctype html><title>Sign in</title><h1>Welcome to the proxy</h1>"
_AZURE: Final = "/openai/deployments/"
_UNDER: Final = "/as/"
_serial = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Read the body.

        Raises:
            RefusedError: it is no JSON object.
        """
        try:
            value = json.loads(self.body)
        except ValueError as exc:
            raise RefusedError(400, "We could not parse the JSON body of your request.") from exc
        if not isinstance(value, dict):
            raise RefusedError(400, "The body is no object.")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """How a request is answered; `call` is null for commands."""

    reply: Reply
    script: Script = HONEST
    call: Call | None = None


@dataclass(slots=True)
class Desk:
    """Without `keys` anybody may call. `models` are what is listed; scripted ones are known too."""

    keys: frozenset[str] = frozenset()
    models: tuple[str, ...] = MODELS
    scripts: Scripts = field(default_factory=Scripts)
    ledger: Ledger = field(default_factory=Ledger)

    def take(self, request: Request) -> Exchange:
        path, _, query = request.target.partition("?")
        if path.startswith("/_"):
            return Exchange(reply=self._command(request, unquote(path)))
        under, path = _split(unquote(path))
        call = Call(
            id=f"req_{next(_serial):024d}",
            method=request.method,
            path=path,
            under=under,
            client_request_id=request.headers.get("x-client-request-id")
            or request.headers.get("x-request-id"),
            traceparent=request.headers.get("traceparent"),
        )
        self.ledger.calls.append(call)
        is_anthropic = path.endswith("/messages") or "anthropic-version" in request.headers
        script = HONEST if under is None else self.scripts.take(under)
        try:
            self._check_key(request, call)
            # Whoever calls under a name is answered as commanded, whatever it is that is sent.
            reply = None if under is None else _commanded(script)
            if reply is None:
                body, ask = self._find(
                    request, path, dict(parse_qsl(query)), is_anthropic=is_anthropic
                )
                call.model, call.user = body.get("model"), body.get("user")
                if under is None:
                    script = self.scripts.take(*([call.model] if call.model else []))
                reply = _commanded(script) or ask(body, script)
                reply = _failing(reply, script, is_anthropic=is_anthropic)
        except RefusedError as refused:
            reply = _refusal(refused, request, script, call, is_anthropic=is_anthropic)
        return Exchange(reply=_dressed(reply, script, call), script=script, call=call)

    def _find(
        self, request: Request, path: str, query: Mapping[str, str], *, is_anthropic: bool
    ) -> tuple[dict[str, Any], Callable[[dict[str, Any], Script], Reply]]:
        """Find the route, and read the body it takes."""
        base, route = _route(path)
        if request.method == "GET" and base is not None:
            return self._reading(route, query, is_anthropic=is_anthropic)
        asked = {
            "/chat/completions": openai_wire.chat,
            "/completions": openai_wire.completion,
            "/embeddings": openai_wire.embeddings,
            "/messages": anthropic_wire.messages,
        }.get(route)
        if base is None or asked is None or request.method != "POST":
            raise RefusedError(404, f"Invalid URL ({request.method} {path})", code="unknown_url")
        body = request.json()
        if base.startswith(_AZURE):
            body["model"] = base.removeprefix(_AZURE)
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise RefusedError(400, "you must provide a model parameter")
        if is_anthropic and "anthropic-version" not in request.headers:
            raise RefusedError(400, "anthropic-version: header is required")
        return body, self._knowing(model, asked)

    def _reading(
        self, route: str, query: Mapping[str, str], *, is_anthropic: bool
    ) -> tuple[dict[str, Any], Callable[[dict[str, Any], Script], Reply]]:
        if route == "/models":

            def list_models(_: dict[str, Any], script: Script) -> Reply:
                if is_anthropic:
                    return anthropic_wire.models(self.models, query, script)
                return openai_wire.models(self.models, script)

            return {}, list_models
        if route == "/key":
            return {}, lambda _, __: answer({"data": {"label": "a key", "usage": 0, "limit": None}})
        if route.startswith("/models/"):
            name = route.removeprefix("/models/")
            one = anthropic_wire.model if is_anthropic else openai_wire.model
            return {"model": name}, self._knowing(name, lambda _, __: answer(one(name)))
        raise RefusedError(404, f"Invalid URL (GET {route})", code="unknown_url")

    def _knowing(
        self, model: str, ask: Callable[[dict[str, Any], Script], Reply]
    ) -> Callable[[dict[str, Any], Script], Reply]:
        if model in self.models or model in self.scripts:
            return ask

        def refuse(_: dict[str, Any], __: Script) -> Reply:
            raise RefusedError(404, f"The model `{model}` does not exist.", code="model_not_found")

        return refuse

    def _check_key(self, request: Request, call: Call) -> None:
        call.key_style, key = _key(request)
        call.key_digest = None if key is None else digest_of(key)
        if self.keys and key not in self.keys:
            raise RefusedError(401, _wrong_key(key))

    def _command(self, request: Request, path: str) -> Reply:
        """Obey `/_script/{name}`, `/_keys`, `/_models`, and show `/_ledger`."""
        _, word, *rest = path.split("/", 2)
        try:
            return self._obey(request.method, word, rest[0] if rest else "", request)
        except (RefusedError, ValueError) as exc:
            return answer({"error": str(exc)}, status=400)

    def _obey(self, method: str, word: str, name: str, request: Request) -> Reply:
        match method, word:
            case "PUT", "_script":
                self.scripts.put(name, Script.model_validate_json(request.body))
            case "DELETE", "_script":
                self.scripts.remove(name)
            case "PUT", "_keys":
                self.keys = frozenset(request.json()["keys"])
            case "PUT", "_models":
                self.models = tuple(request.json()["models"])
            case "GET", "_ledger":
                _, _, query = request.target.partition("?")
                return answer(self.ledger.told(after=int(dict(parse_qsl(query)).get("after", 0))))
            case "DELETE", "_ledger":
                self.ledger.clear()
            case "GET", "_health":
                return answer({"status": "ok"})
            case _:
                return answer({"error": "no such command"}, status=404)
        return Reply(status=204)


def _split(path: str) -> tuple[str | None, str]:
    """Take the script's name off a path that begins with `/as/{name}`."""
    if not path.startswith(_UNDER):
        return None, path
    name, _, rest = path.removeprefix(_UNDER).partition("/")
    return name, f"/{rest}"


def _route(path: str) -> tuple[str | None, str]:
    """Split a path where a supplier's API begins; no base is a wrong URL."""
    if path.startswith(_AZURE):
        deployment, _, rest = path.removeprefix(_AZURE).partition("/")
        return _AZURE + deployment, f"/{rest}"
    base = next((each for each in BASES if path.startswith(f"{each}/")), None)
    return base, path[len(base or "") :]


def _key(request: Request) -> tuple[KeyStyle, str | None]:
    words = request.headers.get("authorization", "").split(" ", 1)
    if words[0].lower() == "bearer" and len(words) == 2:
        return "bearer", words[1]
    for style in ("x-api-key", "api-key"):
        if style in request.headers:
            return style, request.headers[style]
    return "none", None


def _wrong_key(key: str | None) -> str:
    if key is None:
        return "You didn't provide an API key."
    # As the real one does: whoever quotes this has quoted part of a key.
    return f"Incorrect API key provided: {key[:8]}{'*' * 8}{key[-4:]}."


def _commanded(script: Script) -> Reply | None:
    """Give what was commanded instead of an answer, if anything was."""
    if script.redirect is not None:
        return Reply(status=307, headers={"location": script.redirect}, body=b"", content_type=JSON)
    if script.body is not None and script.status is None:
        return _odd(script)
    if script.status is not None:
        raise RefusedError(script.status, f"Commanded to say {script.status}.", code=script.code)
    return None


def _failing(reply: Reply, script: Script, *, is_anthropic: bool) -> Reply:
    """End a stream with an error where it was commanded to; nothing is told of its cost."""
    if script.fail_after is None or reply.events is None or reply.spent is None:
        return reply
    kept = reply.events[: script.fail_after]
    failure = anthropic_wire.failure() if is_anthropic else openai_wire.failure()
    spent = replace(
        reply.spent,
        completion=sum(event.tokens for event in kept),
        told_prompt=None,
        told_completion=None,
    )
    return replace(reply, events=[*kept, failure], spent=spent)


def _odd(script: Script) -> Reply:
    status = script.status or 200
    bodies: Mapping[str, tuple[bytes, str]] = {
        "html": (HTML, "text/html"),
        "invalid-json": (b'{"object": "list", "data": [', JSON),
        "other-json": (dump({"hello": ["world"], "count": 3}), JSON),
    }
    body, content_type = bodies.get(script.body or "", (b"", JSON))
    return Reply(status=status, body=body, content_type=content_type)


def _refusal(
    refused: RefusedError, request: Request, script: Script, call: Call, *, is_anthropic: bool
) -> Reply:
    if script.body is not None:
        return _odd(script)
    message = refused.message
    headers: dict[str, str] = {}
    if script.echo_key:
        _, key = _key(request)
        message = f"{message} You sent {key}."
        headers["x-your-key"] = key or ""
    if script.retry_after is not None and script.status == refused.status:
        headers["retry-after"] = str(script.retry_after)
    body = (
        anthropic_wire.error(refused.status, message, request_id=call.id)
        if is_anthropic
        else openai_wire.error(refused.status, message, code=refused.code, param=refused.param)
    )
    return Reply(status=refused.status, body=body, headers=headers)


def _dressed(reply: Reply, script: Script, call: Call) -> Reply:
    """Note what is answered, and put on the headers that each answer has."""
    call.status = reply.status
    call.is_streamed = reply.events is not None
    if reply.spent is not None:
        call.prompt_tokens = reply.spent.prompt
        told = (reply.spent.told_prompt, reply.spent.told_completion)
        call.told_prompt_tokens, call.told_completion_tokens = told
    return Reply(
        status=reply.status,
        body=reply.body,
        events=reply.events,
        content_type=script.content_type or reply.content_type,
        headers={"x-request-id": call.id, "request-id": call.id, **reply.headers},
        spent=reply.spent,
    )
