"""What was sent, and what was found of it where nothing should be."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from redis.asyncio import Redis

from maas.audit.infrastructure.stream import STREAM
from maas.shared.infrastructure.logging import is_secret_name
from tests.e2e.canaries.places import TOLD_BACK, Canaries, Shot
from tests.e2e.canaries.sinks import read_logs, read_redis, read_tables
from tests.e2e.routes.world import Case, World

MIN_SECRET_CHARS = 12
PLANTED = "planted"
STREAM_SINK = f"redis {STREAM}"

_IN_THE_TRAIL = {
    *("audit_log.payload", "audit_log.resource_id", "audit_outbox.payload", STREAM_SINK),
}

KEPT = {
    # What a browser says of itself: a personal field of the event, apart from what is hashed and
    # erased with its person, and shown to them in the list of their sessions.
    "user agent": {
        *("audit_personal.user_agent", "audit_outbox.personal", STREAM_SINK),
        "sessions.user_agent",
    },
    # What a file is called is what the event is about, and where the answer says it is.
    "file name": {
        *_IN_THE_TRAIL,
        *("version_files.path", "file_charges.path", "an answer's headers"),
    },
    "tag": {*_IN_THE_TRAIL, "model_tags.tag", "version_search.tags"},
    "alias": {
        *_IN_THE_TRAIL,
        *("model_aliases.name", "model_alias_moves.alias", "version_search.aliases"),
        "an answer's headers",
    },
}
"""What may be found, by the place it was put in: everything else is a leak."""


@dataclass(slots=True, kw_only=True)
class Hunt:
    """The processes, what was sent to them, and what was found of it."""

    world: World
    canaries: Canaries
    clients: Mapping[str, httpx.AsyncClient]
    environment: Mapping[str, str]
    folder: Path
    redis: "Redis"
    connection: "asyncpg.Connection[asyncpg.Record]"
    leaks: set[tuple[str, str, str]] = field(default_factory=set)
    """Place, route and sink."""
    issued: set[str] = field(default_factory=set)
    """Tokens and passwords that the platform itself made up."""
    requests: int = 0

    def note(self, found: set[tuple[str, str]], sink: str) -> None:
        self.leaks |= {
            (place, route, sink) for place, route in found if sink not in KEPT.get(place, ())
        }

    def summary(self) -> dict[str, list[str]]:
        """Tell of each place in which sinks it was found, with a route that this was seen at.

        What was planted to be found is left out, for tests run in any order.
        """
        seen = {
            (place, sink): route for place, route, sink in sorted(self.leaks) if place != PLANTED
        }
        told: dict[str, list[str]] = {}
        for (place, sink), route in seen.items():
            told.setdefault(place, []).append(f"{sink} ({route})")
        return told

    async def heard(self, answer: httpx.Response) -> None:
        """Look through an answer, and remember the secrets that it hands out."""
        body = await answer.aread()
        self.requests += 1
        headers = repr(answer.headers.raw).encode()
        if not answer.is_success:
            found = self.canaries.found_in(body)
            self.note({each for each in found if each[0] not in TOLD_BACK}, "a refusal")
        self.note(self.canaries.found_in(headers), "an answer's headers")
        if body and answer.headers.get("content-type", "").startswith("application/json"):
            self.issued |= set(secrets_in(answer.json()))

    async def send(self, client: httpx.AsyncClient, key: str, case: Case, shot: Shot) -> None:
        route = self.world.routes[key]
        path = route.path
        for name, value in (case.values if shot.values is None else shot.values).items():
            path = path.replace(f"{{{name}}}", value)
        headers = {
            **(case.credentials if shot.has_credentials else {}),
            **case.headers,
            **shot.headers,
        }
        sent: dict[str, Any] = {"content": shot.content or case.content}
        if sent["content"] is None:
            sent = {"data": case.form} if case.form is not None else {"json": case.json}
        await client.request(route.method, f"{path}{shot.query}", headers=headers, **sent)

    async def look(self) -> None:
        """Read through all that is left of what was done."""
        texts = await read_tables(self.connection)
        texts |= await read_redis(self.redis)
        texts |= read_logs(self.folder)
        for sink, text in texts.items():
            self.note(self.canaries.found_in(text), sink)
            self.leaks |= {("issued", "", sink) for each in self.issued if each.encode() in text}


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """Find what stands under a secret's name, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_in(inner, name)
    elif is_secret_name(name) or name == "link":
        yield from [value] if isinstance(value, str) and len(value) >= MIN_SECRET_CHARS else []
