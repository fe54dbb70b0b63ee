"""The row of the route of receipts."""

import asyncio
from datetime import timedelta
from typing import cast
from uuid import UUID

from maas.audit.public import AuditScope
from maas.inference.application.call_facts import CALL, COMPLETED, Facts, facts_of_hold
from maas.shared.domain.call import Call
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, new_id
from maas.user.public import Amounts, Budgets, Payer, UsageFigures
from tests.e2e.routes.making import Make
from tests.e2e.routes.world import EVENT_SECONDS, Case, World
from tests.fakes.recorder import FakeRecorder

IS_RECORDED = "SELECT EXISTS (SELECT FROM audit_log WHERE request_id = $1)"
CALLED: Facts = {
    "name": "gemma",
    "revision": 1,
    "kind": "chat",
    "is_stream": False,
    "choices": 1,
    "is_foreign": False,
    "is_cache_hit": False,
}


async def on_receipt(world: World) -> Case:
    request_id, platform = new_id().hex, world.platform
    payer = Payer(
        tenant_id=DEFAULT_TENANT_ID,
        account_id=AccountId(UUID(world.ids["root"])),
        actor_kind="account",
    )
    budgets = cast("Budgets", platform.state["budgets"])
    hold = await budgets.reserve(
        payer,
        Amounts(tokens=9),
        lease=timedelta(minutes=1),
        model="gemma",
        request_id=request_id,
    )
    scope = AuditScope(COMPLETED, tenant_id=payer.tenant_id)
    scope.change(CALL, new_id(), after={**CALLED, **facts_of_hold(hold)})
    call = Call(request_id=request_id, recorder=FakeRecorder())
    event = platform.audit.trail.compose(scope, call)
    await budgets.settle(hold, UsageFigures(output_tokens=3), event=event)
    await _recorded(world, request_id)
    return Case(
        caller=world.root,
        values={"request_id": request_id},
        missing={"request_id": new_id().hex},
    )


async def _recorded(world: World, request_id: str) -> None:
    """Flush until the event is in the log: it is on its way through Redis for some moments."""
    async with asyncio.timeout(EVENT_SECONDS):
        while not await world.connection.fetchval(IS_RECORDED, request_id):
            await world.flushing.service.run()
            await asyncio.sleep(0.02)


RECEIPT_ROWS: dict[str, Make] = {"GET /receipts/{request_id}": on_receipt}
