"""Aliases: what they may point at, and moves that follow one another whatever the clock says."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from maas.model.domain.alias import (
    POINTED_AT,
    Alias,
    AliasName,
    AliasNotFoundError,
    InvalidAliasNameError,
    VersionAliasedError,
    VersionNotReadyError,
)
from maas.model.domain.text import Reason, VersionName
from maas.model.domain.version import ModelVersion
from maas.model.public import ModelId, VersionId, VersionStatus
from maas.shared.domain.ids import AccountId, TenantId, new_id

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TENANT, MODEL, ADA = TenantId(new_id()), ModelId(new_id()), AccountId(new_id())


def make_alias() -> Alias:
    return Alias(model_id=MODEL, name=AliasName("production"), tenant_id=TENANT)


def make_version(name: str = "1", status: VersionStatus = "ready") -> ModelVersion:
    return ModelVersion(
        id=VersionId(new_id()),
        tenant_id=TENANT,
        model_id=MODEL,
        name=VersionName(name),
        status=status,
        description=None,
        created_by=ADA,
        created_at=NOON,
        updated_at=NOON,
    )


class TestName:
    @pytest.mark.parametrize("name", ["production", "v1.2", "A_b-c+d", "x" * 64])
    def test_is_kept_as_it_is(self, name: str) -> None:
        assert str(AliasName(name)) == name

    @pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "生产", "x" * 65, "a\n"])
    def test_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidAliasNameError):
            AliasName(name)


class TestPoint:
    @pytest.mark.parametrize("status", sorted(set(get_args(VersionStatus)) - POINTED_AT))
    def test_wants_files_that_are_fixed(self, status: VersionStatus) -> None:
        alias = make_alias()

        with pytest.raises(VersionNotReadyError, match=status):
            alias.point_at(make_version(status=status), reason=None, by=ADA, at=NOON)

        assert alias.sequence == 0

    def test_tells_where_from_and_where_to(self) -> None:
        alias, one, two = make_alias(), make_version("1"), make_version("2", "deprecated")

        first = alias.point_at(one, reason=None, by=ADA, at=NOON)
        second = alias.point_at(two, reason=Reason("better"), by=ADA, at=NOON + timedelta(hours=1))

        assert first is not None
        assert second is not None
        assert (first.sequence, first.previous_version, first.version) == (1, None, one.name)
        assert (second.sequence, second.previous_version, second.version) == (2, one.name, two.name)
        assert (alias.version_id, alias.revision, alias.moved_at) == (two.id, 2, second.at)
        assert (second.reason, alias.reason) == (Reason("better"), Reason("better"))

    def test_where_it_points_already_is_no_move(self) -> None:
        alias, version = make_alias(), make_version()
        alias.point_at(version, reason=None, by=ADA, at=NOON)

        again = alias.point_at(version, reason=Reason("again"), by=ADA, at=NOON)

        assert (again, alias.sequence, alias.reason) == (None, 1, None)

    @pytest.mark.parametrize("at", [NOON, NOON - timedelta(days=1)])
    def test_comes_after_the_move_before_whatever_the_clock_says(self, at: datetime) -> None:
        alias = make_alias()
        alias.point_at(make_version("1"), reason=None, by=ADA, at=NOON)

        second = alias.point_at(make_version("2"), reason=None, by=ADA, at=at)

        assert second is not None
        assert second.at == NOON + timedelta(microseconds=1)


class TestRemove:
    def test_is_a_move_to_nowhere_and_counting_goes_on(self) -> None:
        alias, version = make_alias(), make_version()
        alias.point_at(version, reason=None, by=ADA, at=NOON)

        gone = alias.remove(by=ADA, at=NOON)
        is_gone = alias.revision is None
        back = alias.point_at(version, reason=None, by=ADA, at=NOON)

        assert (gone.sequence, gone.version, gone.previous_version) == (2, None, version.name)
        assert is_gone
        assert back is not None
        assert (back.sequence, back.previous_version, alias.revision) == (3, None, 3)

    def test_of_what_points_nowhere_is_refused(self) -> None:
        with pytest.raises(AliasNotFoundError):
            make_alias().remove(by=ADA, at=NOON)


@pytest.mark.parametrize(
    ("count", "named"), [(1, "`a0`"), (5, "`a4`"), (6, "`a4` and 1 more"), (1000, "and 995 more")]
)
def test_who_is_to_move_many_aliases_is_told_a_few(count: int, named: str) -> None:
    error = VersionAliasedError([f"a{number}" for number in range(count)])

    assert f"{named} at another version" in str(error.detail)
    assert len(str(error.detail)) < 200
