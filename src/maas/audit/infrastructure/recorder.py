"""What has no transaction of its own: recorded durably before it is answered."""

from dataclasses import replace

from maas.audit.application.events import EventComposer
from maas.audit.infrastructure.outbox import keep_in_outbox
from maas.audit.infrastructure.stream import EventStream
from maas.audit.public import AuditScope, find_scope
from maas.shared.domain.call import Outcome, current_call
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisUnavailableError


class AuditRecorder:
    """The `EventRecorder` of calls: the stream, else the outbox, else no answer."""

    def __init__(self, *, composer: EventComposer, stream: EventStream, database: Database) -> None:
        self._composer = composer
        self._stream = stream
        self._database = database

    async def record(self, *, action: str, outcome: Outcome, reason: str | None = None) -> None:
        """Return once the event is durable; an open scope says what it is about.

        Raises:
            AuditUnavailableError: neither Redis nor PostgreSQL took it.
        """
        open_scope = find_scope()
        if open_scope is None:
            scope = AuditScope(action, outcome, reason)
        else:
            scope = replace(open_scope, action=action, outcome=outcome, reason=reason)
        event = self._composer.compose(scope, current_call())
        try:
            await self._stream.append(event)
        except RedisUnavailableError:
            await keep_in_outbox(self._database, event)
