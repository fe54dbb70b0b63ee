"""What is said of a model and a version beside its name: kept as it was meant, or refused."""

import hashlib
import math

import pytest

from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath
from maas.model.domain.metadata import (
    MAX_ENTRIES,
    MAX_METRICS,
    InvalidMetadataError,
    InvalidMetricsError,
    Metadata,
    MetadataValue,
    Metrics,
)
from maas.model.domain.model import (
    MAX_TAGS,
    ModelTagNotFoundError,
    NotModelOwnerError,
    TooManyTagsError,
)
from maas.model.domain.source import UPLOADED, InvalidSourceError, Source
from maas.model.domain.text import (
    MAX_CARD_BYTES,
    InvalidCardError,
    InvalidSourceUrlError,
    InvalidTagError,
    ModelCard,
    Reason,
    SourceUrl,
    Tag,
    VersionName,
)
from maas.model.domain.version import OPEN_TO_LINEAGE, LineageFrozenError
from maas.model.public import ModelId, VersionStatus
from maas.shared.domain.ids import AccountId, new_id
from tests.unit.model.test_model import (
    ADA,
    LATER,
    NOON,
    STATUSES,
    make_blob,
    make_model,
    make_version,
    put,
)

BOB = AccountId(new_id())
ELSEWHERE = Source(kind="imported-from", url=SourceUrl("https://example.com/a"))


class TestCards:
    @pytest.mark.parametrize(
        "text", ["# A\n\n\ttext\r\n", "模型" * 10, "a\u200bb", "x" * MAX_CARD_BYTES]
    )
    def test_are_kept_as_they_are(self, text: str) -> None:
        assert str(ModelCard(text)) == text

    @pytest.mark.parametrize(
        "text", ["", " \n", "a\0", "a\x1b[0m", "\ud800", "x" * (MAX_CARD_BYTES + 1), "模" * 87_382]
    )
    def test_that_cannot_be_kept_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidCardError):
            ModelCard(text)


class TestTags:
    @pytest.mark.parametrize("text", ["a", "chat", "v1.0", "org:team", "c++17", "客服", "a" * 64])
    def test_are_words(self, text: str) -> None:
        assert str(Tag(text)) == text

    def test_have_one_spelling(self) -> None:
        assert Tag("e\u0301") == Tag("\u00e9")

    @pytest.mark.parametrize("text", ["", " ", "a b", "a/b", "-a", "a.", "a" * 65, "a\u200b", ".."])
    def test_that_are_none_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidTagError):
            Tag(text)

    def test_are_put_on_and_taken_off_once(self) -> None:
        model = make_model()

        model.tag(Tag("a"), at=LATER)
        model.tag(Tag("a"), at=LATER)
        assert (model.tags, model.revision) == ({Tag("a")}, 2)
        model.untag(Tag("a"), at=LATER)
        with pytest.raises(ModelTagNotFoundError):
            model.untag(Tag("a"), at=LATER)

        assert (model.tags, model.revision) == (set(), 3)

    def test_there_are_only_so_many(self) -> None:
        model = make_model()
        for number in range(MAX_TAGS):
            model.tag(Tag(f"t{number}"), at=LATER)

        model.tag(Tag("t0"), at=LATER)
        with pytest.raises(TooManyTagsError):
            model.tag(Tag("more"), at=LATER)


class TestEntries:
    def test_may_be_texts_numbers_and_truths(self) -> None:
        entries: dict[str, MetadataValue] = {
            "a b": "数",
            "n": -(2**63),
            "f": 0.5,
            "t": True,
            "empty": "",
        }

        assert Metadata(entries).entries == entries

    @pytest.mark.parametrize(
        "entries",
        [
            {"": 1},
            {" a": 1},
            {"a\n": 1},
            {"a": "x\0"},
            {"a": "x" * 501},
            {"a": 2**63},
            {"a": math.nan},
            {"a": math.inf},
            {f"k{number}": 1 for number in range(MAX_ENTRIES + 1)},
        ],
    )
    def test_that_cannot_be_kept_are_refused(self, entries: dict[str, float | str]) -> None:
        with pytest.raises(InvalidMetadataError):
            Metadata(entries)

    @pytest.mark.parametrize(
        "values",
        [
            {"": 1.0},
            {"a": math.nan},
            {"a": -math.inf},
            {"a": 10**400},
            {f"m{number}": 1.0 for number in range(MAX_METRICS + 1)},
        ],
    )
    def test_of_metrics_are_finite_numbers(self, values: dict[str, float]) -> None:
        with pytest.raises(InvalidMetricsError):
            Metrics(values)

    def test_replace_all_that_were_there(self) -> None:
        model, version = make_model(), make_version()

        model.revise(at=LATER, metadata=Metadata({"a": 1}))
        model.revise(at=LATER, metadata=Metadata({"b": 2}))
        version.revise(at=LATER, metrics=Metrics({"a": 1}), metadata=Metadata({"a": 1}))
        version.revise(at=LATER, metrics=Metrics({"b": 2}))

        assert (model.metadata, model.revision) == ({"b": 2}, 3)
        assert (version.metrics, version.metadata, version.revision) == ({"b": 2}, {"a": 1}, 3)

    def test_that_are_the_same_are_no_change_but_true_is_not_one(self) -> None:
        model = make_model()
        model.revise(at=LATER, metadata=Metadata({"a": 1}))

        model.revise(at=LATER, metadata=Metadata({"a": 1.0}))
        assert model.revision == 2
        model.revise(at=LATER, metadata=Metadata({"a": True}))

        assert (model.metadata, model.revision) == ({"a": True}, 3)


class TestOwner:
    def test_decides_and_whoever_manages_models(self) -> None:
        model = make_model()

        model.check_decider(ADA, is_manager=False)
        model.check_decider(BOB, is_manager=True)
        with pytest.raises(NotModelOwnerError):
            model.check_decider(BOB, is_manager=False)

    def test_hands_the_model_over(self) -> None:
        model = make_model()

        model.revise(at=LATER, owner_id=BOB)

        with pytest.raises(NotModelOwnerError):
            model.check_decider(ADA, is_manager=False)


class TestRestore:
    def test_brings_a_model_back_once(self) -> None:
        model = make_model()
        model.delete(at=NOON)

        model.restore(at=LATER)
        model.restore(at=LATER)

        assert (model.deleted_at, model.updated_at, model.revision) == (None, LATER, 3)


class TestSources:
    @pytest.mark.parametrize(
        "url", ["https://example.com", "http://[::1]:80/a?b=c#d", "https://huggingface.co/a/b"]
    )
    def test_urls_are_absolute(self, url: str) -> None:
        assert str(SourceUrl(url)) == url

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "a/b",
            "//example.com",
            "file:///etc/passwd",
            "https://",
            "https://ada:secret@example.com",
            "https://example.com/a b",
            "https://exam\nple.com/",
            "http://[::1",
            "https://example.com/" + "a" * 2_000,
        ],
    )
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(InvalidSourceUrlError):
            SourceUrl(url)

    def test_have_what_their_kind_wants_and_nothing_else(self) -> None:
        model, version = ModelId(new_id()), VersionName("1")

        assert Source(kind="fine-tuned-from", model_id=model, version=version).text == (
            f"fine-tuned-from {model} 1"
        )
        with pytest.raises(InvalidSourceError):
            Source(kind="uploaded", version=version)
        with pytest.raises(InvalidSourceError):
            Source(kind="fine-tuned-from", model_id=model)
        with pytest.raises(InvalidSourceError):
            Source(kind="imported-from")

    @pytest.mark.parametrize("status", STATUSES)
    def test_change_until_the_version_is_ready(self, status: VersionStatus) -> None:
        version = make_version(status)

        if status in OPEN_TO_LINEAGE:
            version.revise(at=LATER, source=ELSEWHERE)
            assert version.source == ELSEWHERE
        else:
            version.revise(at=LATER, source=UPLOADED, metrics=Metrics({"a": 1}))
            with pytest.raises(LineageFrozenError):
                version.revise(at=LATER, source=ELSEWHERE, metrics=Metrics({}))
            assert (version.source, version.metrics) == (UPLOADED, {"a": 1.0})


class TestTotals:
    def test_follow_the_files(self) -> None:
        version = make_version()
        seen = []

        put(version, FilePath("a"), make_blob(3))
        seen.append((version.file_count, version.size))
        put(version, FilePath("b"), make_blob(4))
        seen.append((version.file_count, version.size))
        put(version, FilePath("a"), make_blob(9))
        seen.append((version.file_count, version.size))
        version.remove_file(FilePath("b"), at=LATER)
        seen.append((version.file_count, version.size))

        assert seen == [(1, 3), (2, 7), (2, 13), (1, 9)]

    def test_the_checksum_is_of_all_files_whatever_their_order(self) -> None:
        paths = ("b", "a/z", "a-", "数")
        version = make_version()
        for path in paths:
            put(version, FilePath(path), make_blob(len(path)))
        before = version.checksum
        lines = [
            f"{path}\0{make_blob(len(path)).sha256}\n".encode()
            for path in sorted(paths, key=str.encode)
        ]

        version.move_to("ready", reason=None, by=ADA, at=LATER)

        version.move_to("deprecated", reason=None, by=ADA, at=LATER)

        assert before is None
        assert version.checksum == Digest(hashlib.sha256(b"".join(lines)).digest())


class TestTransitions:
    def test_are_noted_with_who_and_why(self) -> None:
        version = make_version()

        put(version)
        put(version, FilePath("other"))
        version.move_to("ready", reason=Reason("tested"), by=BOB, at=LATER)

        noted = [
            (step.revision, step.from_status, step.to_status, step.reason, step.by)
            for step in version.transitions
        ]
        assert noted == [
            (2, "pending", "uploading", None, ADA),
            (4, "uploading", "ready", Reason("tested"), BOB),
        ]
