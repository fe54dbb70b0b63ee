"""Models and versions decide for themselves."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import get_args

import pytest

from maas.model.domain.blob import Blob, Digest, Part
from maas.model.domain.file import FilePath
from maas.model.domain.model import Model
from maas.model.domain.text import Description, Label, ModelName, Reason, VersionName
from maas.model.domain.version import (
    DELETABLE,
    MAX_FILES,
    OPEN_TO_FILES,
    TRANSITIONS,
    FilePathConflictError,
    ModelVersion,
    TooManyFilesError,
    TransitionRefusedError,
    VersionEmptyError,
    VersionFileNotFoundError,
    VersionFrozenError,
    VersionInUseError,
)
from maas.model.public import ModelId, VersionId, VersionStatus
from maas.shared.domain.ids import AccountId, TenantId, new_id

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
ADA = AccountId(new_id())
PATH = FilePath("model.gguf")
STATUSES: tuple[VersionStatus, ...] = get_args(VersionStatus)

ALLOWED = {
    ("pending", "uploading"),
    ("pending", "failed"),
    ("uploading", "validating"),
    ("uploading", "ready"),
    ("uploading", "failed"),
    ("validating", "ready"),
    ("validating", "failed"),
    ("ready", "deprecated"),
    ("deprecated", "ready"),
    ("deprecated", "archived"),
    ("failed", "uploading"),
}


def make_model() -> Model:
    return Model(
        id=ModelId(new_id()),
        tenant_id=TenantId(new_id()),
        name=ModelName("org/name"),
        description=Description("text"),
        framework="gguf",
        task=Label("chat"),
        licence=None,
        owner_id=ADA,
        created_by=ADA,
        created_at=NOON,
        updated_at=NOON,
    )


def make_version(status: VersionStatus = "pending") -> ModelVersion:
    return ModelVersion(
        id=VersionId(new_id()),
        tenant_id=TenantId(new_id()),
        model_id=ModelId(new_id()),
        name=VersionName("1"),
        status=status,
        description=None,
        created_by=ADA,
        created_at=NOON,
        updated_at=NOON,
    )


def make_blob(size: int = 3) -> Blob:
    digest = Digest(bytes([size % 256]) * 32)
    return Blob(sha256=digest, size=size, parts=(Part(key="k", size=size, sha256=digest),))


def put(version: ModelVersion, path: FilePath = PATH, blob: Blob | None = None) -> None:
    version.put_file(path, blob or make_blob(), media_type="a/b", by=ADA, at=LATER)


class TestRevise:
    def test_sets_what_is_given_and_leaves_the_rest(self) -> None:
        model = make_model()

        model.revise(at=LATER, description=None, licence=Label("MIT"))

        assert model.description is None
        assert (str(model.licence), str(model.task), str(model.name)) == ("MIT", "chat", "org/name")
        assert (model.updated_at, model.revision) == (LATER, 2)

    def test_what_changes_nothing_is_no_change(self) -> None:
        model, version = make_model(), make_version()

        model.revise(at=LATER)
        model.revise(at=LATER, task=model.task, name=ModelName(str(model.name)))
        version.revise(at=LATER)
        version.revise(at=LATER, description=None)

        assert (model.updated_at, model.revision) == (NOON, 1)
        assert (version.updated_at, version.revision) == (NOON, 1)

    def test_a_version_is_described_anew(self) -> None:
        version = make_version()

        version.revise(at=LATER, description=Description("New."))

        assert (version.updated_at, version.revision) == (LATER, 2)

    def test_deletion_is_a_change(self) -> None:
        model = make_model()

        model.delete(at=LATER)

        assert (model.deleted_at, model.revision) == (LATER, 2)


class TestMoveTo:
    @pytest.mark.parametrize(("old", "new"), list(product(STATUSES, STATUSES)))
    def test_goes_only_where_a_way_leads(self, old: VersionStatus, new: VersionStatus) -> None:
        version = make_version()
        put(version)
        version.status = old

        if (old, new) in ALLOWED:
            version.move_to(new, reason=Reason("why"), by=ADA, at=LATER)
            assert (version.status, version.status_reason) == (new, Reason("why"))
            assert version.updated_at == LATER
        else:
            with pytest.raises(TransitionRefusedError):
                version.move_to(new, reason=None, by=ADA, at=LATER)
            assert version.status == old

    def test_every_status_is_in_the_table(self) -> None:
        assert set(TRANSITIONS) == set(STATUSES)

    @pytest.mark.parametrize("new", ["validating", "ready"])
    def test_wants_files_for_it(self, new: VersionStatus) -> None:
        with pytest.raises(VersionEmptyError):
            make_version("uploading").move_to(new, reason=None, by=ADA, at=LATER)

    def test_says_where_it_can_go(self) -> None:
        with pytest.raises(TransitionRefusedError) as caught:
            make_version("deprecated").move_to("failed", reason=None, by=ADA, at=LATER)

        assert caught.value.detail == "The version is deprecated: it can become archived or ready."


class TestFiles:
    @pytest.mark.parametrize("status", STATUSES)
    def test_change_only_while_the_version_is_open(self, status: VersionStatus) -> None:
        version = make_version()
        put(version)
        version.status = status

        if status in OPEN_TO_FILES:
            put(version, FilePath("other"))
            version.remove_file(PATH, at=LATER)
            assert set(version.files) == {FilePath("other")}
        else:
            with pytest.raises(VersionFrozenError):
                put(version, FilePath("other"))
            with pytest.raises(VersionFrozenError):
                version.remove_file(PATH, at=LATER)

    def test_the_first_one_starts_uploading(self) -> None:
        version = make_version()

        put(version)

        assert (version.status, version.revision) == ("uploading", 2)

    def test_a_path_is_taken_over(self) -> None:
        version = make_version()
        put(version)

        put(version, blob=make_blob(9))

        assert [file.size for file in version.files.values()] == [9]

    def test_there_are_only_so_many(self) -> None:
        version = make_version()
        for number in range(MAX_FILES):
            put(version, FilePath(f"f{number}"))

        with pytest.raises(TooManyFilesError):
            put(version, FilePath("more"))
        put(version, FilePath("f0"))

    @pytest.mark.parametrize(
        ("there", "new"),
        [
            ("a.txt", "a.txt/b"),
            ("a.txt/b", "a.txt"),
            ("a/b/c", "a"),
            ("a", "a/b/c"),
            ("数/b", "数"),
        ],
    )
    def test_a_file_is_no_folder(self, there: str, new: str) -> None:
        version = make_version()
        put(version, FilePath(there))

        with pytest.raises(FilePathConflictError):
            put(version, FilePath(new))

        assert set(version.files) == {FilePath(there)}

    def test_of_some_of_its_files_no_checksum_is_made(self) -> None:
        version = make_version()
        for path in ("a", "b"):
            put(version, FilePath(path))
        del version.files[FilePath("a")]

        with pytest.raises(RuntimeError):
            version.move_to("ready", reason=None, by=ADA, at=LATER)

    def test_paths_that_only_look_alike_are_apart(self) -> None:
        version = make_version()
        for path in ("a", "ab", "a.b/c", "a.b/d", "b/a", "a-/a"):
            put(version, FilePath(path))

        put(version, FilePath("a"), make_blob(9))

        assert len(version.files) == 6

    def test_an_unknown_one_cannot_be_removed(self) -> None:
        with pytest.raises(VersionFileNotFoundError):
            make_version("uploading").remove_file(PATH, at=LATER)

    @pytest.mark.parametrize("status", STATUSES)
    def test_a_version_in_use_is_not_deleted(self, status: VersionStatus) -> None:
        version = make_version(status)

        if status in DELETABLE:
            version.check_deletable()
        else:
            with pytest.raises(VersionInUseError):
                version.check_deletable()
