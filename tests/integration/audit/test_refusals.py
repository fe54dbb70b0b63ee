"""Errors of PostgreSQL that are no outage, and do not say whose fault they are."""

import pytest
from structlog.testing import capture_logs

from tests.integration.audit.helpers import Trail, names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


class TestRefusals:
    async def test_of_no_known_kind_bury_the_one_at_fault_and_no_other(self, trail: Trail) -> None:
        good = [trail.make() for _ in range(20)]
        bad = trail.make("model.cursed")
        await trail.superuser.execute(
            """CREATE FUNCTION refuse_cursed() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN
                   IF NEW.action = 'model.cursed' THEN RAISE EXCEPTION 'cursed'; END IF;
                   RETURN NEW;
               END $$"""
        )
        await trail.superuser.execute(
            "CREATE TRIGGER refuse_cursed BEFORE INSERT ON audit_log"
            " FOR EACH ROW EXECUTE FUNCTION refuse_cursed()"
        )
        try:
            await trail.add(*good[:10], bad, *good[10:])

            report = await trail.flush().run()
        finally:
            await trail.superuser.execute("DROP TRIGGER refuse_cursed ON audit_log")
            await trail.superuser.execute("DROP FUNCTION refuse_cursed")

        assert (report.written, report.buried, report.interrupted) == (20, 1, [])
        assert sorted(await trail.logged()) == sorted(names(*good))
        dead = await trail.superuser.fetchrow("SELECT * FROM audit_dead_letter")
        assert dead is not None
        assert bad.payload in dead["fields"]
        assert await trail.nothing_waits()

    async def test_of_everything_bury_nothing_and_raise_the_alarm(self, trail: Trail) -> None:
        await trail.add(*(trail.make() for _ in range(20)))
        await trail.superuser.execute("REVOKE INSERT ON audit_chain FROM maas_system")
        flush = trail.flush()
        try:
            with capture_logs() as lines:
                reports = [await flush.run() for _ in range(2)]
        finally:
            await trail.superuser.execute("GRANT INSERT ON audit_chain TO maas_system")

        assert [report.interrupted for report in reports] == [["audit-log-refused"]] * 2
        alarms = [line for line in lines if line["event"] == "audit_flush_refused"]
        assert [(line["log_level"], line["by"]) for line in alarms] == [
            ("error", "InsufficientPrivilegeError 42501")
        ]
        assert await trail.count("audit_dead_letter") == 0
        assert (await flush.run()).written == 20
