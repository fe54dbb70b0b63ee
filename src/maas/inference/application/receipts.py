"""Receipts: what a call's event says, what the ledger booked of it, and the proof of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from maas.audit.public import RecordedEvent, RecordedEvents
from maas.inference.application.call_facts import COMPLETED
from maas.shared.domain.errors import NotFoundError
from maas.shared.domain.principal import Principal
from maas.user.public import Booking, Bookings, HoldId

READ_ALL: Final = "usage:read"
"""Held by who reads the receipts of everybody in the tenant."""

RETRY_AFTER: Final = timedelta(seconds=1)


class ReceiptNotFoundError(NotFoundError):
    code = "receipt-not-found"
    title = "There is no receipt of this request"

    def __init__(self) -> None:
        super().__init__(
            "No call of yours with this request id is in the log. One that has just ended is there "
            "within seconds: try again.",
            retry_after=RETRY_AFTER,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The event's facts are those that `facts_of_call` and its like wrote."""

    event: RecordedEvent
    booking: Booking | None
    proof: Mapping[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptService:
    events: RecordedEvents
    bookings: Bookings

    async def get(self, caller: Principal, request_id: str) -> Receipt:
        """Read the receipt of a call that was held for: the last one, if several share the id.

        Raises:
            ReceiptNotFoundError: there is none, none yet, or none that the caller may see.
        """
        tenant_id = caller.tenant_id
        events = await self.events.list_of_request(
            tenant_id,
            request_id,
            action=COMPLETED,
            actor_id=None if caller.may(READ_ALL) else caller.account_id,
            # What was refused leaves events too, and nothing that could be a receipt.
            telling="hold_id",
        )
        for event in events:
            hold_id, held_at = event.after.get("hold_id"), event.after.get("held_at")
            if isinstance(hold_id, str) and isinstance(held_at, str):
                return Receipt(
                    event=event,
                    booking=await self.bookings.find(
                        tenant_id, HoldId(UUID(hold_id)), datetime.fromisoformat(held_at)
                    ),
                    proof=await self.events.find_proof(tenant_id, event.id),
                )
        raise ReceiptNotFoundError
