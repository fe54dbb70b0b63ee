"""Ways around the check that a plain edit does not take."""

from typing import Any

import pytest

from maas.audit.application.verification import Verdict, VerificationService, VerifyOptions
from maas.audit.infrastructure.signing import is_signed_by
from maas.audit.infrastructure.trail_reader import PostgresTrailReader
from maas.audit.public import Actor
from maas.audit.wiring import erase_personal_fields
from maas.shared.domain.ids import AccountId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Superuser, Trail

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(60),
    pytest.mark.usefixtures("clean"),
]

ADA = AccountId(new_id())


@pytest.fixture
async def recorded(trail: Trail) -> Trail:
    await trail.add(*(trail.make(actor=Actor("account", ADA, "ada")) for _ in range(40)))
    await trail.flush(batch_size=10).run()
    return trail


async def check(superuser: Superuser, **options: Any) -> Verdict:
    reader = PostgresTrailReader(superuser)
    return await VerificationService(reader=reader, is_signed=is_signed_by).verify(
        VerifyOptions(**options)
    )


async def change(superuser: Superuser, statement: str) -> None:
    await superuser.execute(
        f"BEGIN; SET LOCAL session_replication_role = replica; {statement}; COMMIT"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_checkpoints WHERE n = 2",
        "UPDATE audit_checkpoints SET seq_to = 13 WHERE n = 2",
    ],
)
async def test_a_stretch_whose_checkpoint_is_gone_is_not_passed_over(
    statement: str, recorded: Trail
) -> None:
    await change(recorded.superuser, statement)
    await change(recorded.superuser, "UPDATE audit_chain SET leaf = row_hash WHERE seq = 15")

    verdict = await check(recorded.superuser, first=15, last=16)

    assert not verdict.is_sound


async def test_personal_fields_that_nobody_asked_to_erase_are_missed(recorded: Trail) -> None:
    await change(
        recorded.superuser,
        "DELETE FROM audit_personal p USING audit_log l WHERE l.event_id = p.event_id AND seq = 7",
    )

    verdict = await check(recorded.superuser)

    assert [finding.subject for finding in verdict.findings] == ["row 7"]


async def test_personal_fields_that_were_erased_on_request_are_not(
    recorded: Trail, settings: Settings
) -> None:
    await recorded.superuser.execute("INSERT INTO audit_erasures (actor_id) VALUES ($1)", ADA)
    await erase_personal_fields(settings.database, clock=SystemClock())
    await recorded.age()
    await recorded.flush().run()

    verdict = await check(recorded.superuser)

    assert verdict.is_sound, list(verdict.findings)
    assert verdict.erased == 40
