import asyncio

import pytest

from maas.audit.public import (
    AuditedResource,
    AuditScope,
    NoAuditScopeError,
    audit_scope,
    audited,
    current_scope,
    find_scope,
)
from maas.shared.domain.call import ACTION_ATTRIBUTE, Call, EventRecorder, Outcome, serving
from maas.shared.domain.errors import (
    ConflictError,
    MaasError,
    PermissionDeniedError,
    UnavailableError,
)
from maas.shared.domain.ids import new_id
from tests.fakes.recorder import FakeRecorder, make_call

RESOURCE = AuditedResource("account", frozenset({"status", "roles"}))


class FailingRecorder:
    async def record(self, **_: object) -> None:
        raise UnavailableError


async def act(recorder: EventRecorder, *, error: BaseException | None = None) -> None:
    @audited("account.created")
    async def route() -> None:
        if error is not None:
            raise error

    with serving(Call(request_id="test", recorder=recorder)):
        await route()


class TestAudited:
    async def test_records_what_was_not_committed(self) -> None:
        recorder = FakeRecorder()

        await act(recorder)

        assert recorder.events == [("account.created", "success", None)]

    @pytest.mark.parametrize(
        ("error", "outcome"), [(ConflictError(), "failure"), (PermissionDeniedError(), "denied")]
    )
    async def test_records_a_refusal_under_its_code(
        self, error: MaasError, outcome: Outcome
    ) -> None:
        recorder = FakeRecorder()

        with pytest.raises(type(error)):
            await act(recorder, error=error)

        assert recorder.events == [("account.created", outcome, error.code)]

    @pytest.mark.parametrize(
        "error", [RuntimeError(), UnavailableError(), asyncio.CancelledError()], ids=repr
    )
    async def test_claims_nothing_about_a_crash_or_an_outage(self, error: BaseException) -> None:
        recorder = FakeRecorder()

        with pytest.raises(type(error)):
            await act(recorder, error=error)

        assert recorder.events == []

    async def test_records_an_outage_of_which_the_act_knows_that_nothing_was_done(self) -> None:
        recorder = FakeRecorder()

        @audited("account.created")
        async def route() -> None:
            current_scope().refuse("queue-full")
            raise UnavailableError

        with serving(make_call(recorder)), pytest.raises(UnavailableError):
            await route()

        assert recorder.events == [("account.created", "failure", "queue-full")]

    async def test_refuses_the_answer_when_nothing_can_be_recorded(self) -> None:
        with pytest.raises(UnavailableError):
            await act(FailingRecorder(), error=ConflictError())

    async def test_records_nothing_more_once_a_commit_wrote_it(self) -> None:
        recorder = FakeRecorder()

        with serving(make_call(recorder)):
            async with audit_scope("account.created") as scope:
                scope.is_written = True

        assert recorder.events == []

    async def test_records_nothing_for_a_repeated_answer(self) -> None:
        recorder = FakeRecorder()

        with serving(make_call(recorder)):
            async with audit_scope("account.created"):
                current_scope().skip()

        assert recorder.events == []

    async def test_says_under_which_action_it_is_audited(self) -> None:
        @audited("account.created")
        async def route() -> None: ...

        assert getattr(route, ACTION_ATTRIBUTE) == "account.created"
        assert route.__name__ == "route"


class TestScope:
    async def test_is_open_inside_only(self) -> None:
        with serving(make_call()):
            async with audit_scope("outer"):
                async with audit_scope("inner") as inner:
                    assert current_scope() is inner
                assert current_scope().action == "outer"

        assert find_scope() is None
        with pytest.raises(NoAuditScopeError):
            current_scope()

    def test_drops_fields_that_are_not_on_the_list(self) -> None:
        scope = AuditScope("account.created")

        scope.change(RESOURCE, new_id(), after={"status": "active", "password_hash": "secret"})

        assert scope.after == {"status": "active"}

    def test_keeps_only_what_differs(self) -> None:
        scope = AuditScope("account.updated")
        account_id = new_id()

        scope.change(
            RESOURCE,
            account_id,
            before={"status": "active", "roles": ["user"]},
            after={"status": "active", "roles": ["admin"]},
        )

        assert (scope.before, scope.after) == ({"roles": ["user"]}, {"roles": ["admin"]})
        assert (scope.resource_kind, scope.resource_id) == ("account", str(account_id))
