"""Telling every process, in one round trip, which sessions and keys to look at anew."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from maas.shared.infrastructure.redis import RedisGate, RedisUnavailableError, Script
from maas.user.application.admin_ports import SessionEffects
from maas.user.infrastructure.sessions import (
    TOMBSTONE_MARGIN,
    VALID_ENTRY_LIFETIME,
    key_entry,
    session_key,
)

MARKED_AT_ONCE: Final = 2_000
STALE_MARGIN: Final = timedelta(seconds=2)

# Fills are refused when they come later than an entry's life after the question, so a mark that
# outlives that has met every reader of what was before. ARGV: the lives of tombstones and stale
# marks in ms, then an entry per key. Nothing older replaces what is newer, and nothing a tombstone.
MARK: Final = Script("""
for i, key in ipairs(KEYS) do
  local entry = ARGV[i + 2]
  local kind, version = string.match(entry, '^(%a)|(%d+)')
  local old = redis.call('GET', key)
  local old_kind, old_version = string.match(old or '', '^(%a)|(%d+)')
  local is_older = old_version and tonumber(old_version) > tonumber(version)
  if not (is_older or (kind == 's' and old_kind == 'x')) then
    redis.call('SET', key, entry, 'PX', kind == 'x' and ARGV[1] or ARGV[2])
  end
end
return #KEYS
""")


class RedisSessionMarks:
    """Marks sessions after the commit that changed them (the `SessionMarks` port)."""

    def __init__(self, redis: RedisGate, *, access_lifetime: timedelta) -> None:
        self._redis = redis
        self._tombstone_ms = _milliseconds(access_lifetime + TOMBSTONE_MARGIN)
        self._stale_ms = _milliseconds(VALID_ENTRY_LIFETIME + STALE_MARGIN)

    async def announce(self, effects: SessionEffects) -> None:
        marks = [(session_key(each.id), f"x|{each.version}") for each in effects.ended]
        marks += [(session_key(each.id), f"s|{each.version}") for each in effects.stale]
        keys = effects.stale_keys + effects.new_keys
        marks += [(key_entry(each.public_id), f"s|{each.version}") for each in keys]
        try:
            for batch in _batches(marks):
                names, entries = [name for name, _ in batch], [entry for _, entry in batch]
                args: list[str | int] = [self._tombstone_ms, self._stale_ms, *entries]
                await self._redis.evaluate(MARK, keys=names, args=args)
        except RedisUnavailableError:
            if not (effects.ended or effects.stale or effects.stale_keys):
                return
            # Entries of before die within this time, and PostgreSQL tells the new state already.
            await asyncio.sleep(VALID_ENTRY_LIFETIME.total_seconds())


def _batches(marks: Sequence[tuple[str, str]]) -> Iterable[Sequence[tuple[str, str]]]:
    return (marks[at : at + MARKED_AT_ONCE] for at in range(0, len(marks), MARKED_AT_ONCE))


def _milliseconds(lifetime: timedelta) -> int:
    return round(lifetime / timedelta(milliseconds=1))
