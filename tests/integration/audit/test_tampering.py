"""Every change behind the application's back is found, and named to its row."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias

import asyncpg
import pytest

from maas.audit.application.verification import Verdict, VerificationService, VerifyOptions
from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.audit.flush_wiring import build_flush
from maas.audit.infrastructure import checkpoints
from maas.audit.infrastructure.checkpoints import read_row
from maas.audit.infrastructure.signing import Ed25519Signer, is_signed_by
from maas.audit.infrastructure.trail_reader import PostgresTrailReader
from maas.audit.wiring import load_configured_signer
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.infrastructure.settings import Settings
from tests.amounts import IS_FULL
from tests.conftest import MakeSettings
from tests.integration.audit.helpers import Superuser, Trail
from tests.integration.audit.tampering import Tamperer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

RecordProperty: TypeAlias = Callable[[str, object], None]

ROWS = 300
SHARES = 8 if IS_FULL else 2
SHARE = 125
TENANTS = [TenantId(new_id()) for _ in range(3)]
ACTIONS = ("model.created", "auth.login", "usage.settled", "role.assigned")


@pytest.fixture
async def recorded(trail: Trail) -> Trail:
    await trail.add(
        *(
            trail.make(
                ACTIONS[number % len(ACTIONS)],
                tenant_id=TENANTS[number % len(TENANTS)],
                resource_kind="model",
                resource_id=f"m{number}",
                email="ada@example.com" if number % 5 else None,
                address="2001:db8::7" if number % 7 == 0 else "192.0.2.7",
            )
            for number in range(ROWS)
        )
    )
    await trail.flush(batch_size=20).run()
    return trail


@pytest.fixture
async def outsider(superuser: Superuser) -> AsyncIterator[Superuser]:
    """A superuser for whom no trigger fires and no reference is checked."""
    # Plans are made once: with so many partitions, each costs more than the query.
    await superuser.execute(
        "SET session_replication_role = replica; SET plan_cache_mode = force_generic_plan"
    )
    yield superuser
    await superuser.execute("RESET session_replication_role; RESET plan_cache_mode")


async def exported(superuser: Superuser) -> list[tuple[str, SignedCheckpoint]]:
    """The newest head, as the task would have written it into the file."""
    row: Any = await superuser.fetchrow("SELECT * FROM audit_checkpoints ORDER BY n DESC LIMIT 1")
    return [("heads.ndjson line 1", read_row(row))]


async def verify(
    connection: "asyncpg.Connection[asyncpg.Record]",
    signer: Ed25519Signer,
    heads: Sequence[tuple[str, SignedCheckpoint]] = (),
    **options: Any,
) -> Verdict:
    service = VerificationService(reader=PostgresTrailReader(connection), is_signed=is_signed_by)
    keys = {signer.key_id: signer.public_key}
    return await service.verify(VerifyOptions(heads=heads, trusted_keys=keys, **options))


@pytest.mark.parametrize("share", range(SHARES))
async def test_each_of_a_thousand_tamperings_is_found(
    share: int,
    recorded: Trail,
    outsider: Superuser,
    settings: Settings,
    record_property: RecordProperty,
) -> None:
    seed = random.randrange(2**32)  # noqa: S311  a dice, not a secret
    dice = random.Random(seed)  # noqa: S311  a dice, not a secret
    signer, heads = load_configured_signer(settings), await exported(outsider)
    untouched = await verify(outsider, signer, heads)
    assert untouched.is_sound, list(untouched.findings)
    assert untouched.is_complete, untouched.gaps
    assert (untouched.rows, untouched.checkpoints) == (ROWS, ROWS // 20)
    tamperer = Tamperer(outsider, dice, ROWS)

    missed = []
    for number in range(SHARE):
        transaction = outsider.transaction()
        await transaction.start()
        try:
            expected = await tamperer.change()
            verdict = await verify(outsider, signer, heads)
        finally:
            await transaction.rollback()
        findings = verdict.head_findings if expected.is_cut else verdict.findings
        first = next(iter(findings), None)
        if first is None or not expected.is_named_by(first):
            missed.append((number, expected, first))
        if expected.is_cut and verdict.findings:
            missed.append((number, expected, next(iter(verdict.findings))))

    record_property("found", SHARE - len({number for number, _, _ in missed}))
    assert missed == [], f"seed {seed}, share {share}"


async def test_rows_older_than_the_first_checkpoint_are_covered_with_the_next_batch(
    recorded: Trail, outsider: Superuser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_LEAVES", 128)
    await outsider.execute("DELETE FROM audit_checkpoints; DELETE FROM audit_signing_keys")
    bare = await verify(outsider, load_configured_signer(settings))
    await recorded.add(recorded.make())

    await recorded.flush().run()

    covered = await verify(outsider, load_configured_signer(settings))
    sizes = await outsider.fetch("SELECT seq_to - seq_from + 1 FROM audit_checkpoints ORDER BY n")
    assert [finding.what for finding in bare.findings] == ["covered by no checkpoint"]
    assert covered.is_sound, list(covered.findings)
    assert [size[0] for size in sizes] == [128, 128, 44, 1]


async def test_a_new_key_signs_from_then_on_and_shows(
    recorded: Trail, outsider: Superuser, make_settings: MakeSettings, settings: Settings
) -> None:
    new = make_settings(audit={"signing_key": "11" * 32})
    old_signer, new_signer = load_configured_signer(settings), load_configured_signer(new)
    await recorded.add(recorded.make())
    flush = build_flush(new)
    await flush.service.run()
    await flush.close()

    trusting = await VerificationService(
        reader=PostgresTrailReader(outsider), is_signed=is_signed_by
    ).verify(VerifyOptions())
    with_old = await verify(outsider, old_signer)

    assert trusting.is_sound, list(trusting.findings)
    assert {key_id: use.first_seq for key_id, use in trusting.keys.items()} == {
        old_signer.key_id: 1,
        new_signer.key_id: ROWS + 1,
    }
    assert [(finding.seq, finding.subject) for finding in with_old.findings] == [
        (ROWS + 1, "checkpoint 16")
    ]


async def test_a_stretch_is_widened_to_its_checkpoints(
    recorded: Trail, outsider: Superuser, settings: Settings
) -> None:
    signer = load_configured_signer(settings)
    await outsider.execute("UPDATE audit_log SET action = 'x.y' WHERE seq IN (1, 100, 300)")

    verdict = await verify(outsider, signer, first=50, last=150)

    assert (verdict.first_seq, verdict.last_seq, verdict.rows) == (41, 160, 120)
    assert [finding.seq for finding in verdict.findings] == [100]
