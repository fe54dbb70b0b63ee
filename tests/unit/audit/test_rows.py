"""A bulk act leaves one event a row."""

from maas.audit.public import audit_row, audit_scope, current_scope
from maas.shared.domain.call import serving
from tests.fakes.recorder import FakeRecorder, make_call


async def test_each_row_is_filled_in_by_itself_and_the_whole_again_afterwards() -> None:
    with serving(make_call()):
        async with audit_scope("user.bulk") as whole:
            with audit_row("user.created") as first:
                assert current_scope() is first
            with audit_row("user.removed") as second:
                current_scope().reason = "left"
            assert current_scope() is whole
            whole.is_written = True

    assert whole.rows == [first, second]
    assert (first.reason, second.reason, whole.reason) == (None, "left", None)


async def test_rows_that_were_never_committed_are_not_recorded() -> None:
    recorder = FakeRecorder()
    with serving(make_call(recorder)):
        async with audit_scope("user.bulk"):
            with audit_row("user.created"):
                pass

    assert recorder.events == [("user.bulk", "success", None)]
