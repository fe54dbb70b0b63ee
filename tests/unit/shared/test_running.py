"""Tests take places: one of each thing, and so many of a tenant."""

from contextlib import ExitStack

import pytest

from maas.audit.application.webhooks_tests import TooManyWebhookTestsError
from maas.model.domain.provider_check import ProviderUnderTestError
from maas.shared.application.running import RunningTests
from maas.shared.domain.errors import TooManyRequestsError
from maas.shared.domain.ids import TenantId, new_id

TENANT, OTHER = TenantId(new_id()), TenantId(new_id())


@pytest.fixture
def running() -> RunningTests[str]:
    return RunningTests(of_tenant=2, refuse=lambda: TooManyRequestsError("wait"))


def test_one_of_a_thing_and_so_many_of_a_tenant_run_at_once(running: RunningTests[str]) -> None:
    with ExitStack() as stack:
        stack.enter_context(running.one(TENANT, "a"))
        with pytest.raises(TooManyRequestsError), running.one(OTHER, "a"):
            pass
        stack.enter_context(running.one(TENANT, "b"))
        with pytest.raises(TooManyRequestsError), running.one(TENANT, "c"):
            pass
        stack.enter_context(running.one(OTHER, "c"))


def test_a_place_is_free_again_however_a_test_ended(running: RunningTests[str]) -> None:
    with pytest.raises(ZeroDivisionError), running.one(TENANT, "a"):
        raise ZeroDivisionError

    with running.one(TENANT, "a"), running.one(TENANT, "b"):
        pass


@pytest.mark.parametrize("error", [TooManyWebhookTestsError(), ProviderUnderTestError()])
def test_whoever_finds_none_is_told_how_many_there_are_and_when_to_ask_again(
    error: TooManyRequestsError,
) -> None:
    assert "a tenant" in error.detail
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 5
