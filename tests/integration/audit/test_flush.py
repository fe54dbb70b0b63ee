"""From the stream and the outbox into the chain: exactly once, whatever happens in between."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from maas.audit.infrastructure.inboxes import StreamInbox
from maas.audit.infrastructure.stream import GROUP, STREAM
from maas.shared.domain.ids import new_id
from tests.integration.audit.helpers import Trail, names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


class KilledError(BaseException):
    """Ends a flush where a `kill -9` would."""


def killing_at(point: str) -> Callable[[str], None]:
    def checkpoint(name: str) -> None:
        if name == point:
            raise KilledError

    return checkpoint


async def let_five_seconds_pass(trail: Trail) -> None:
    """Age what is pending, so that it counts as abandoned."""
    for entry_id, _ in await trail.entries():
        await trail.redis.client.xclaim(STREAM, GROUP, "ghost", 0, [entry_id], idle=6_000)


class TestRun:
    async def test_logs_every_column_of_an_event(self, trail: Trail) -> None:
        event = trail.make(
            "model.created", resource_kind="model", resource_id="m1", email="a@example.com"
        )
        await trail.add(event)

        await trail.flush().run()

        row = await trail.superuser.fetchrow(
            "SELECT * FROM audit_log JOIN audit_personal USING (event_id, tenant_id)"
        )
        assert row is not None
        hashed: dict[str, Any] = json.loads(event.payload)
        columns = {
            "payload": event.payload,
            "retention_class": "operations",
            "actor_kind": "account",
            "action": "model.created",
            "outcome": "success",
            "reason": None,
            "resource_kind": "model",
            "resource_id": "m1",
            "request_id": hashed["request_id"],
            "duration_ms": event.duration_ms,
            "actor_name": "ada",
            "email": "a@example.com",
            "user_agent": None,
            "salt": event.personal.salt,
            "session_id": None,
            "api_key_id": None,
        }
        assert {name: row[name] for name in columns} == columns
        assert str(row["address"]) == "192.0.2.7"
        assert str(row["actor_id"]) == hashed["actor"]["id"]
        assert f"{row['occurred_at']:%Y-%m-%dT%H:%M:%S.%fZ}" == hashed["occurred_at"]

    async def test_keeps_the_order_of_the_stream_and_chains_it(self, trail: Trail) -> None:
        events = [trail.make() for _ in range(25)]
        await trail.add(*events)

        report = await trail.flush(batch_size=10).run()

        assert report.written == 25
        assert await trail.logged() == names(*events)
        assert await trail.check_chain() == 25
        assert await trail.nothing_waits()

    async def test_changes_nothing_the_second_time(self, trail: Trail) -> None:
        event = trail.make()
        flush = trail.flush()
        await trail.add(event, event)
        await flush.run()
        await trail.add(event)
        await trail.keep(event)

        report = await flush.run()

        assert (report.written, report.repeated) == (0, 1)
        assert await trail.check_chain() == 1
        assert await trail.nothing_waits()

    async def test_leaves_no_gap_between_several_at_once(self, trail: Trail) -> None:
        events = [trail.make() for _ in range(200)]
        await trail.add(*events[:150])
        await trail.keep(*events[100:])

        reports = await asyncio.gather(*(trail.flush(batch_size=7).run() for _ in range(3)))

        assert sum(report.written for report in reports) == 200
        assert sorted(await trail.logged()) == sorted(names(*events))
        assert await trail.check_chain() == 200
        assert await trail.nothing_waits()

    async def test_runs_once_at_a_time_in_one_process(self, trail: Trail) -> None:
        await trail.add(trail.make())
        flush = trail.flush()

        reports = await asyncio.gather(flush.run(), flush.run())

        assert sorted(report.written for report in reports) == [0, 1]


class TestKilled:
    @pytest.mark.parametrize("point", ["after_read", "after_insert", "after_commit"])
    async def test_anywhere_it_neither_loses_nor_doubles(self, trail: Trail, point: str) -> None:
        events = [trail.make() for _ in range(5)]
        await trail.add(*events[:3])
        await trail.keep(*events[2:])
        with pytest.raises(KilledError):
            await trail.flush(checkpoint=killing_at(point)).run()
        await let_five_seconds_pass(trail)

        await trail.flush().run()

        assert await trail.logged() == names(*events)
        assert await trail.check_chain() == 5
        assert await trail.nothing_waits()

    async def test_and_still_within_five_seconds_its_entries_are_left_to_it(
        self, trail: Trail
    ) -> None:
        await trail.add(trail.make())
        await trail.flush().stream.take(10)

        report = await trail.flush().run()

        assert report.written == 0
        assert not await trail.nothing_waits()

    async def test_by_a_lost_database_it_acknowledges_nothing_and_goes_on_later(
        self, trail: Trail
    ) -> None:
        await trail.add(trail.make())
        await trail.superuser.execute("ALTER TABLE audit_head RENAME TO audit_head_away")
        flush = trail.flush()

        try:
            report = await flush.run()
        finally:
            await trail.superuser.execute("ALTER TABLE audit_head_away RENAME TO audit_head")

        pending: Any = await trail.redis.client.xpending(STREAM, GROUP)
        assert report.interrupted == ["audit-log-refused"]
        assert pending["pending"] == 1
        assert (await flush.run()).written == 1
        assert await trail.nothing_waits()

    async def test_connections_are_replaced(self, trail: Trail) -> None:
        flush = trail.flush()
        await trail.add(trail.make())
        await flush.run()
        await trail.superuser.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
            " WHERE application_name = 'maas-flush' AND datname = current_database()"
        )
        await trail.add(trail.make())

        reports = [await flush.run() for _ in range(2)]

        assert sum(report.written for report in reports) == 1
        assert await trail.check_chain() == 2


class TestPoison:
    async def test_is_put_aside_with_its_bytes_and_the_rest_flows(self, trail: Trail) -> None:
        good = [trail.make() for _ in range(3)]
        unfit = trail.make()
        # Well-formed as JSON, and refused by PostgreSQL alone: only halving finds it.
        payload = unfit.payload.replace(b'"request_id":"', b'"request_id":"\\u0000')
        await trail.add(good[0])
        await trail.add_raw(garbage=b"\xff\x00")
        await trail.add(good[1])
        await trail.add_raw(
            v="1", id=str(unfit.id), payload=payload, personal=unfit.personal.to_json()
        )
        huge = trail.make()
        spaces = b" " * 10_000_000
        await trail.add_raw(
            v="1", id=str(huge.id), payload=huge.payload + spaces, personal=huge.personal.to_json()
        )
        await trail.add(good[2])

        report = await trail.flush().run()

        assert (report.written, report.buried) == (3, 3)
        assert await trail.logged() == names(*good)
        dead = await trail.superuser.fetch("SELECT source, fields FROM audit_dead_letter")
        assert {row["source"] for row in dead} == {"stream"}
        assert [b"garbage", b"\xff\x00"] in [row["fields"] for row in dead]
        assert any(payload in row["fields"] for row in dead)
        assert any(huge.payload + spaces in row["fields"] for row in dead)
        assert await trail.nothing_waits()
        assert await trail.check_chain() == 3

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b'"kind":"account"', b'"kind":7'),
            (b'"kind":"account"', b'"kind":null'),
            (b'"reason":null', b'"reason":[]'),
            (b'"session_id":null', b'"session_id":"x"'),
            (b'"tenant_id":"', b'"tenant_id":"x'),
            (b'"resource":{"id":null', b'"resource":{"id":"%s"' % (b"ab\\u00e9" * 50_000)),
        ],
        ids=["number", "null", "list", "id", "tenant", "long"],
    )
    async def test_values_of_a_wrong_kind_do_not_stop_the_flush(
        self, trail: Trail, before: bytes, after: bytes
    ) -> None:
        good, odd = trail.make(), trail.make()
        assert before in odd.payload
        await trail.add_raw(
            v="1",
            id=str(odd.id),
            payload=odd.payload.replace(before, after),
            personal=odd.personal.to_json(),
        )
        await trail.add(good)

        await trail.flush().run()

        assert names(good)[0] in await trail.logged()
        assert await trail.nothing_waits()

    async def test_in_the_outbox_moves_to_the_dead_letters(self, trail: Trail) -> None:
        good, bad = trail.make(), new_id()
        await trail.superuser.execute(
            "INSERT INTO audit_outbox (event_id, tenant_id, payload, personal)"
            " VALUES ($1, $1, $2, '{}')",
            bad,
            b"\x00garbage",
        )
        await trail.age()
        await trail.keep(good)

        report = await trail.flush().run()

        assert (report.written, report.buried) == (1, 1)
        row = await trail.superuser.fetchrow("SELECT * FROM audit_dead_letter")
        assert row is not None
        assert (row["source"], row["entry_id"]) == ("outbox", str(bad))
        assert b"\x00garbage" in row["fields"]
        assert await trail.nothing_waits()

    async def test_is_not_buried_twice(self, trail: Trail) -> None:
        await trail.add_raw(garbage="x")
        flush = trail.flush()
        delivery = (await flush.stream.take(1))[0]
        await flush.ledger.bury(delivery, error="killed before it was acknowledged")

        await flush.run()

        assert await trail.count("audit_dead_letter") == 1


class TestStream:
    async def test_without_its_group_is_read_from_the_beginning(self, trail: Trail) -> None:
        flush = trail.flush()
        await trail.add(trail.make())
        await flush.run()
        await trail.redis.client.xgroup_destroy(STREAM, GROUP)
        await trail.add(trail.make())

        report = await flush.run()

        assert report.written == 1
        assert await trail.nothing_waits()

    async def test_lost_altogether_loses_nothing_that_was_committed(self, trail: Trail) -> None:
        event = trail.make()
        flush = trail.flush()
        await flush.run()
        await trail.add(event)
        await trail.keep(event)
        await trail.redis.client.flushdb()

        report = await flush.run()

        assert report.written == 1
        assert await trail.check_chain() == 1
        assert await trail.nothing_waits()

    async def test_entries_that_others_finished_are_let_go(self, trail: Trail) -> None:
        flush = trail.flush()
        await trail.add(trail.make(), trail.make())
        taken = await flush.stream.take(10)
        await trail.redis.client.xdel(STREAM, taken[0].entry_id)

        report = await flush.run()

        assert report.written == 1
        assert await trail.nothing_waits()

    async def test_consumers_of_the_past_are_forgotten_unless_they_hold_entries(
        self, trail: Trail
    ) -> None:
        await trail.flush().run()
        await trail.add(trail.make())
        await trail.flush().stream.take(1)
        newcomer = StreamInbox(trail.redis, consumer="newcomer", forget_after_ms=-1)

        await newcomer.take(1)

        consumers: Any = await trail.redis.client.xinfo_consumers(STREAM, GROUP)
        assert sorted(consumer["pending"] for consumer in consumers) == [0, 1]


class TestPartitions:
    async def test_a_missing_one_is_made_on_the_way(self, trail: Trail) -> None:
        month = await trail.superuser.fetchval(
            "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')"
        )
        await trail.superuser.execute(f"DROP TABLE audit_log_usage_{month}")
        await trail.add(trail.make("inference.completed"), trail.make())

        report = await trail.flush().run()

        assert (report.written, report.buried) == (2, 0)
        assert await trail.count(f"audit_log_usage_{month}") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await trail.superuser.execute(f"TRUNCATE audit_log_usage_{month}")
