"""The `AnswerCache` port over Redis: sealed, bounded in size, and of no consequence while down."""

import asyncio
import struct
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from maas.inference.application.answer_cache import KeptAnswer
from maas.inference.domain.answer_key import AnswerKey
from maas.shared.infrastructure.redis import (
    KEY_PREFIX,
    RedisGate,
    RedisUnavailableError,
    Script,
)
from maas.shared.infrastructure.sealing import Place, Sealer, SecretUnreadableError

log = structlog.get_logger(__name__)

ANSWER_PREFIX: Final = f"{KEY_PREFIX}inference:answer:"
_INDEX: Final = f"{KEY_PREFIX}inference:answers:ends"
_SIZES: Final = f"{KEY_PREFIX}inference:answers:sizes"
_TOTAL: Final = f"{KEY_PREFIX}inference:answers:total"

MAX_PENDING: Final = 64
"""Answers on their way to Redis; beyond these, none is kept."""

FIND_SECONDS: Final = 0.1
CLOSE_SECONDS: Final = 1.0

_HEADER: Final = struct.Struct(">BqH")
"""Layout, microseconds since 1970, and how many bytes the request's id has."""

_LAYOUT: Final = 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# Redis may be the one that evicts nothing, so what is kept is counted here; what ends soonest goes
# first. Where the server evicts all the same, the count only errs towards keeping less, and begins
# anew once nothing is left in the index.
_KEEP: Final = Script("""
local answer, index, sizes, total_key = unpack(KEYS)
local value, lives_ms, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', answer) == 1 then return 0 end
local total = tonumber(redis.call('GET', total_key) or '0')
local function forget(key)
    total = total - tonumber(redis.call('HGET', sizes, key) or '0')
    redis.call('HDEL', sizes, key)
    redis.call('ZREM', index, key)
    redis.call('UNLINK', key)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
forget(answer)
for _, key in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 100)) do
    forget(key)
end
while total + #value > most do
    local next = redis.call('ZRANGE', index, 0, 0)[1]
    if not next then total = 0 break end
    forget(next)
end
redis.call('SET', answer, value, 'PX', lives_ms)
redis.call('ZADD', index, now + lives_ms, answer)
redis.call('HSET', sizes, answer, #value)
redis.call('SET', total_key, math.max(total, 0) + #value)
return 1
""")


class RedisAnswerCache:
    """Each answer is sealed to its key and tenant: moved to another, it does not open."""

    def __init__(self, redis: RedisGate, sealer: Sealer, *, most_bytes: int) -> None:
        self._redis = redis
        self._sealer = sealer
        self._most_bytes = most_bytes
        self._pending: set[asyncio.Task[None]] = set()

    async def find(self, key: AnswerKey) -> KeptAnswer | None:
        try:
            [found] = await self._redis.send([("GET", _name(key))], seconds=FIND_SECONDS)
        except RedisUnavailableError:
            return None
        if not isinstance(found, bytes):
            return None
        try:
            return _read(self._sealer.open(found, _place(key)))
        except (SecretUnreadableError, struct.error, UnicodeDecodeError, OverflowError):
            # Under a key that is gone, or of another release: a new answer will replace it.
            return None

    def keep(self, key: AnswerKey, answer: KeptAnswer, *, keep_for: timedelta) -> None:
        if len(self._pending) >= MAX_PENDING:
            return
        task = asyncio.get_running_loop().create_task(self._keep(key, answer, keep_for))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _keep(self, key: AnswerKey, answer: KeptAnswer, keep_for: timedelta) -> None:
        sealed = self._sealer.seal(_spell(answer), _place(key))
        lives_ms = keep_for // timedelta(milliseconds=1)
        if lives_ms <= 0 or len(sealed) > self._most_bytes:
            return
        try:
            await self._redis.evaluate(
                _KEEP,
                keys=[_name(key), _INDEX, _SIZES, _TOTAL],
                args=[sealed, lives_ms, self._most_bytes],
            )
        except RedisUnavailableError:
            log.info("answer_not_kept")

    async def close(self) -> None:
        """Wait a moment for what is on its way."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=CLOSE_SECONDS)
        for task in self._pending:
            task.cancel()


def _name(key: AnswerKey) -> str:
    return ANSWER_PREFIX + key.digest.hex()


def _place(key: AnswerKey) -> Place:
    return Place(
        table="inference_answers", row=key.digest.hex(), column="answer", tenant=key.tenant_id
    )


def _spell(answer: KeptAnswer) -> bytes:
    request_id = answer.request_id.encode()
    made = (answer.made_at - _EPOCH) // _MICROSECOND
    return _HEADER.pack(_LAYOUT, made, len(request_id)) + request_id + answer.body


def _read(plain: bytes) -> KeptAnswer | None:
    layout, made, length = _HEADER.unpack_from(plain)
    if layout != _LAYOUT:
        return None
    start = _HEADER.size + length
    return KeptAnswer(
        body=plain[start:],
        request_id=plain[_HEADER.size : start].decode(),
        made_at=_EPOCH + made * _MICROSECOND,
    )
