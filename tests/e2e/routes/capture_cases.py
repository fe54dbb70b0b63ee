"""The row of the route of captures."""

from datetime import timedelta
from uuid import UUID

from maas.inference.application.captures import Capture
from maas.inference.infrastructure.captures import PostgresCaptures
from maas.inference.public import DeploymentId
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.sealing_keys import build_sealer
from tests.e2e.routes.making import Make
from tests.e2e.routes.world import Case, World


async def on_capture(world: World) -> Case:
    request_id, now = new_id().hex, SystemClock().now()
    capture = Capture(
        tenant_id=DEFAULT_TENANT_ID,
        account_id=AccountId(UUID(world.ids["root"])),
        request_id=request_id,
        deployment_id=DeploymentId(new_id()),
        kind="chat",
        is_stream=False,
        is_whole=True,
        captured_at=now,
        keep_until=now + timedelta(days=1),
        request=b'{"model": "gemma"}',
        answer=b'{"choices": []}',
    )
    kept = PostgresCaptures(world.platform.database, build_sealer(world.settings))
    await kept.keep([capture])
    return Case(
        caller=world.root,
        values={"request_id": request_id},
        missing={"request_id": new_id().hex},
        resource=("capture", request_id),
    )


CAPTURE_ROWS: dict[str, Make] = {"GET /receipts/{request_id}/capture": on_capture}
