"""How many exports run at once, and that whoever leaves gives the place back."""

import pytest

from maas.audit.application.export_slots import (
    ExportsBusyError,
    ExportSlots,
    TooManyExportsError,
)
from maas.shared.domain.ids import TenantId, new_id

ONE, TWO, THREE = (TenantId(new_id()) for _ in range(3))


def test_a_tenant_has_half_of_the_places() -> None:
    slots = ExportSlots(3)

    with slots.take(ONE), slots.take(ONE):
        with pytest.raises(TooManyExportsError) as refused, slots.take(ONE):
            pass
        assert refused.value.retry_after is not None
        with slots.take(TWO):
            assert slots.taken == 3
            with pytest.raises(ExportsBusyError) as busy, slots.take(THREE):
                pass
            assert busy.value.retry_after is not None
    assert slots.taken == 0


def test_the_only_place_is_anybodys() -> None:
    slots = ExportSlots(1)

    with slots.take(ONE), pytest.raises(ExportsBusyError), slots.take(TWO):
        pass
    with slots.take(TWO):
        assert slots.taken == 1


def test_whoever_fails_gives_the_place_back() -> None:
    slots = ExportSlots(1)

    with pytest.raises(ZeroDivisionError), slots.take(ONE):
        raise ZeroDivisionError
    with slots.take(ONE):
        assert slots.taken == 1
