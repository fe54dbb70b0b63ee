from datetime import timedelta

import pytest

from maas.user.domain.session import REFRESH_GRACE
from tests.factories.accounts import NOON, make_session

SECOND = timedelta(seconds=1)


class TestJudge:
    def test_the_current_token_rotates(self) -> None:
        session = make_session(current_hash=b"now")

        assert session.judge(b"now", at=NOON) == "rotate"

    def test_the_previous_token_repeats_within_the_grace_time(self) -> None:
        session = make_session(previous_hash=b"before", rotated_at=NOON)

        assert session.judge(b"before", at=NOON + REFRESH_GRACE) == "repeat"

    def test_the_previous_token_after_the_grace_time_was_stolen(self) -> None:
        session = make_session(previous_hash=b"before", rotated_at=NOON)

        assert session.judge(b"before", at=NOON + REFRESH_GRACE + SECOND) == "reused"

    def test_any_older_token_was_stolen(self) -> None:
        assert make_session().judge(b"ancient", at=NOON) == "reused"

    @pytest.mark.parametrize(
        "state",
        [
            {"revoked_at": NOON},
            {"expires_at": NOON},
            {"idle_expires_at": NOON},
        ],
    )
    def test_an_ended_session_takes_no_token_at_all(self, state: dict[str, object]) -> None:
        session = make_session(current_hash=b"now", **state)

        assert session.judge(b"now", at=NOON) == "ended"


class TestRotate:
    def test_keeps_the_replaced_token_for_late_answers(self) -> None:
        session = make_session(current_hash=b"first", generation=1)

        session.rotate(b"second", at=NOON, idle=timedelta(days=7))

        assert (session.previous_hash, session.current_hash) == (b"first", b"second")
        assert session.generation == 2
        assert session.idle_expires_at == NOON + timedelta(days=7)


class TestRevoke:
    def test_counts_a_version_so_that_caches_notice(self) -> None:
        session = make_session(version=3)

        session.revoke("logout", at=NOON)

        assert session.version == 4
        assert not session.is_live(NOON)

    def test_ending_an_ended_session_changes_nothing(self) -> None:
        session = make_session(version=3)
        session.revoke("logout", at=NOON)

        session.revoke("token-reused", at=NOON + SECOND)

        assert (session.version, session.revoked_reason, session.revoked_at) == (4, "logout", NOON)
