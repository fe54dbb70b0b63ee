"""Celery's broker as those who only send see it: its URL, its options, the names of its queues."""

from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery import Celery

from maas.shared.infrastructure.redis import KEY_PREFIX
from maas.shared.infrastructure.settings import RedisSettings

QueueName: TypeAlias = Literal["default", "audit"]

QUEUES: Final[tuple[QueueName, ...]] = ("default", "audit")

VISIBILITY_SECONDS: Final = 120
"""After this long an unacknowledged message is delivered again; every task ends well before."""

TICK_EXPIRES_SECONDS: Final = 5.0
SEND_SECONDS: Final = 1.0


def queue_name(name: QueueName) -> str:
    """Spell a queue with its version: messages of another one are not for this code."""
    return f"maas.v1.{name}"


def broker_url(settings: RedisSettings) -> str:
    """Spell the broker's URL as Celery wants it: a Unix socket has another scheme and query."""
    url = (settings.broker_url or settings.url).get_secret_value()
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    query = dict(parse_qsl(parts.query))
    query["virtual_host"] = query.pop("db", "0")
    return f"redis+socket://{parts.netloc}{parts.path}?{urlencode(query)}"


def transport_options() -> dict[str, Any]:
    """What a worker tells the transport; all who share a broker must agree on the prefix."""
    return {
        "visibility_timeout": VISIBILITY_SECONDS,
        "global_keyprefix": f"{KEY_PREFIX}celery:",
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 5,
    }


class TaskSender:
    """Sends one task's ticks from a process that is no worker; made without connecting."""

    def __init__(self, settings: RedisSettings, *, task: str, queue: QueueName) -> None:
        self._task = task
        self._queue = queue_name(queue)
        self._app = Celery("maas-sender", set_as_current=False)
        self._app.conf.update(
            broker_url=broker_url(settings),
            broker_transport_options={
                **transport_options(),
                "socket_timeout": SEND_SECONDS,
                "socket_connect_timeout": SEND_SECONDS,
                # Kombu would otherwise try to connect for ever.
                "max_retries": 0,
            },
            broker_pool_limit=1,
            task_serializer="json",
            task_ignore_result=True,
            enable_utc=True,
            timezone="UTC",
        )

    def send(self) -> None:
        """Send a tick that soon lapses; takes seconds at worst, so call it from a thread.

        Raises whatever Celery, Kombu or the client of Redis do when the broker takes nothing.
        """
        self._app.send_task(
            self._task, queue=self._queue, expires=TICK_EXPIRES_SECONDS, retry=False
        )
