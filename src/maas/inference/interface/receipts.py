"""The receipt of a call, by the request id of its answer."""

from fastapi import APIRouter

from maas.inference.application.receipts import READ_ALL, ReceiptNotFoundError
from maas.inference.interface.dependencies import Receipts, RequestIdPath
from maas.inference.interface.receipt_schemas import ReceiptRead
from maas.inference.public import CALL_MODELS
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(prefix="/receipts", tags=["serving"], route_class=StrictRoute)


@router.get(
    "/{request_id}",
    dependencies=[requires(CALL_MODELS, or_else=READ_ALL)],
    summary="Read the receipt of a call",
    description=(
        "Who called what, who answered, what it cost and why, as the audit trail has it, with the "
        "proof that it is there, beside what the ledger booked. Everybody reads their own; the "
        "tenant's are for holders of `usage:read`. Where several calls share an id, it is the last "
        "one's. A call that was refused before it was sent has none, and one that has just ended "
        "has it within seconds."
    ),
)
@may_refuse(ReceiptNotFoundError)
async def read_receipt(
    request_id: RequestIdPath, caller: Caller, receipts: Receipts
) -> ReceiptRead:
    return ReceiptRead.of(await receipts.get(caller, request_id))
