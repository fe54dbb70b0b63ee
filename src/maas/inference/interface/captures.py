"""Reading what was kept of a call: its prompt and its answer."""

from uuid import UUID

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from maas.audit.public import audited
from maas.inference.application.captures import CaptureNotFoundError
from maas.inference.interface.dependencies import Captures, RequestIdPath
from maas.inference.public import CallKind
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant, ReadModel

router = APIRouter(prefix="/receipts", tags=["serving"], route_class=StrictRoute)


class CaptureRead(ReadModel):
    """A call as it went over the wire."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab3c8-6b1c-7d1e-9a4f-2b7c5d8e9f01",
                    "request_id": "019ab3c86b1c7d1e9a4f2b7c5d8e9f00",
                    "deployment_id": "019ab3c8-0000-7000-8000-000000000001",
                    "account_id": "019ab3c8-0000-7000-8000-000000000002",
                    "kind": "chat",
                    "is_stream": False,
                    "is_whole": True,
                    "captured_at": "2026-11-22T09:30:00Z",
                    "keep_until": "2026-11-29T09:30:00Z",
                    "request": '{"model":"gemma","messages":[{"role":"user","content":"Hi"}]}',
                    "answer": '{"choices":[{"message":{"content":"Hello."}}]}',
                }
            ]
        }
    )

    id: UUID
    request_id: str
    deployment_id: UUID
    account_id: UUID = Field(description="Who called.")
    kind: CallKind
    is_stream: bool
    is_whole: bool = Field(description="Whether the answer came to its end.")
    captured_at: Instant
    keep_until: Instant = Field(description="When it is deleted.")
    request: str = Field(description="The body as it was sent.")
    answer: str = Field(description="The body as it was answered; of a stream, its events.")


@router.get(
    "/{request_id}/capture",
    dependencies=[requires("capture:read")],
    summary="Read the prompt and the answer of a call",
    description=(
        "Kept only where a deployment says so, and only of calls by its own tenant; sealed, for as "
        "long as the deployment says. Calls may share an id, so it is a list, the newest first, "
        "with five on a page at most. Reading it leaves an event."
    ),
)
@audited("capture.read")
@may_refuse(CaptureNotFoundError)
async def read_capture(
    request_id: RequestIdPath, caller: Caller, captures: Captures, page: Paging
) -> PageRead[CaptureRead]:
    found = await captures.read(caller, request_id, page)
    return PageRead[CaptureRead].of(found, CaptureRead.model_validate)
