"""Builds inference from resources."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from maas.inference.infrastructure.upstreams import OutgoingUpstreams
from maas.shared.infrastructure.outgoing_clients import ClientsByReach
from maas.shared.infrastructure.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceContext:
    """The wired context; `state` is what its routes find on `request.state`."""

    state: Mapping[str, object]
    close: Callable[[], Awaitable[None]]


def build_inference(settings: Settings) -> InferenceContext:
    """Build inference; nothing connects before the first call."""
    clients = ClientsByReach.of(settings.outgoing)
    upstreams = OutgoingUpstreams(clients)
    return InferenceContext(state={"upstreams": upstreams}, close=upstreams.close)
