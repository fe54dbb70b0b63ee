from dataclasses import replace
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

import pytest

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.findings import Finding, Findings
from maas.audit.domain.tombstone import (
    GENESIS,
    ArchiveFile,
    MalformedTombstoneError,
    SignedTombstone,
    Tombstone,
    read_signed_tombstone,
)
from maas.audit.domain.tombstone_check import ChainRow, StoredTombstone, TombstoneCheck
from maas.audit.domain.tombstone_rows import (
    BLOCK_SEQS,
    RowDigest,
    RowSet,
    UnreadableRowsError,
    digest_of,
    unpack_rows,
)
from maas.audit.infrastructure.signing import Ed25519Signer, is_signed_by

AT = datetime(2026, 11, 21, 8, 0, 0, 123456, tzinfo=UTC)
RECORDED_AT = datetime(2026, 3, 5, tzinfo=UTC)
SIGNER = Ed25519Signer(bytes([7]) * 32)
TOMBSTONE = Tombstone(
    n=1,
    retention_class="usage",
    period=date(2026, 3, 1),
    rows=2,
    first_seq=3,
    last_seq=5,
    members=bytes([1]) * 32,
    digest=bytes([2]) * 32,
    archive=ArchiveFile(name="a.gz", sha256=bytes([3]) * 32, size=9),
    policy_days=90,
    actor="worker",
    decided_at=AT,
    key_id=SIGNER.key_id,
    previous=GENESIS,
)
SIGNED = SignedTombstone(tombstone=TOMBSTONE, signature=bytes([4]) * 64)


def rows(*seqs: int) -> list[ChainRow]:
    return [(seq, RECORDED_AT, leaf_of(str(seq).encode()), b"") for seq in seqs]


def bury(
    *seqs: int,
    n: int = 1,
    previous: bytes = GENESIS,
    signer: Ed25519Signer = SIGNER,
    **fields: Any,
) -> StoredTombstone:
    members = RowSet(seqs[0])
    for seq in seqs:
        members.add(seq)
    packed = members.pack()
    tombstone = replace(
        TOMBSTONE,
        n=n,
        rows=len(seqs),
        first_seq=seqs[0],
        last_seq=seqs[-1],
        members=sha256(packed).digest(),
        digest=digest_of([(row[0], row[2]) for row in rows(*seqs)]),
        key_id=signer.key_id,
        previous=previous,
        **fields,
    )
    signed = SignedTombstone(tombstone=tombstone, signature=signer.sign(tombstone.to_bytes()))
    return StoredTombstone(signed=signed, packed=packed, hash=tombstone.hash())


def check(
    tombstones: list[StoredTombstone], chain: list[ChainRow]
) -> tuple[set[int], list[Finding]]:
    """Tell which rows are covered, and what is wrong."""
    findings = Findings()
    checking = TombstoneCheck(
        tombstones,
        keys={SIGNER.key_id: SIGNER.public_key},
        is_signed=is_signed_by,
        findings=findings,
    )
    covered = set()
    for row in chain:
        checking.take_rows([row])
        covered |= {row[0]} if checking.covers(row[0]) else set()
        checking.forget_before(row[0] + 1)
    checking.finish(is_to_end=True)
    return covered, list(findings)


class TestTombstone:
    def test_the_signed_bytes_are_frozen(self) -> None:
        assert TOMBSTONE.to_bytes() == (
            b'{"actor":"worker","archive":{"name":"a.gz","sha256":"' + b"03" * 32 + b'","size":9},'
            b'"decided_at":"2026-11-21T08:00:00.123456Z","digest":"' + b"02" * 32 + b'",'
            b'"first_seq":3,"key_id":"' + SIGNER.key_id.encode() + b'","last_seq":5,'
            b'"members":"' + b"01" * 32 + b'","n":1,"period":"2026-03-01","policy_days":90,'
            b'"previous":"' + b"00" * 32 + b'","retention_class":"usage","rows":2,'
            b'"statement":"maas.audit.tombstone","v":1}'
        )

    @pytest.mark.parametrize("archive", [TOMBSTONE.archive, None], ids=["archive", "none"])
    def test_is_read_back_as_it_was_spelled(self, archive: ArchiveFile | None) -> None:
        signed = replace(SIGNED, tombstone=replace(TOMBSTONE, archive=archive))

        assert read_signed_tombstone({**signed.to_mapping(), "type": "tombstone"}) == signed

    @pytest.mark.parametrize(
        "change",
        [
            {"v": 2},
            {"statement": "maas.audit.export"},
            {"n": 0},
            {"rows": "2"},
            {"retention_class": "gold"},
            {"retention_class": None},
            {"period": "March"},
            {"members": "00"},
            {"digest": None},
            {"archive": "a.gz"},
            {"archive": {"name": "", "sha256": "00" * 32, "size": 1}},
            {"archive": {"name": "a", "sha256": "00" * 32, "size": True}},
            {"actor": ""},
            {"decided_at": "2026-11-21T08:00:00"},
            {"previous": "x" * 64},
            {"signature": "00"},
        ],
        ids=str,
    )
    def test_with_another_field_is_none(self, change: dict[str, object]) -> None:
        with pytest.raises(MalformedTombstoneError):
            read_signed_tombstone({**SIGNED.to_mapping(), **change})


class TestRows:
    def test_are_packed_and_unpacked(self) -> None:
        kept = RowSet(10)
        for seq in (10, 11, 900):
            kept.add(seq)

        read = unpack_rows(kept.pack(), first_seq=10, last_seq=900)

        assert [seq for seq in range(1, 1_000) if seq in read] == [10, 11, 900]
        assert len(read) == 3

    @pytest.mark.parametrize("packed", [b"", b"x", RowSet(1, bytes(10**6)).pack()], ids=len)
    def test_that_say_anything_else_are_refused(self, packed: bytes) -> None:
        with pytest.raises(UnreadableRowsError):
            unpack_rows(packed, first_seq=1, last_seq=8)

    def test_take_less_than_a_fifth_of_a_byte_however_they_interleave(self) -> None:
        kept, size = RowSet(1), 3 * 100_000
        for seq in range(1, size, 3):
            kept.add(seq)

        assert len(kept.pack()) < size / 5

    def test_digest_goes_on_at_a_block(self) -> None:
        pairs = [(seq, leaf_of(b"%d" % seq)) for seq in range(BLOCK_SEQS - 2, BLOCK_SEQS + 2)]
        first = RowDigest()
        for seq, leaf in pairs[:2]:
            first.take(seq, leaf)
        first.close_block()
        second = RowDigest(first.blocks)
        for seq, leaf in pairs[2:]:
            second.take(seq, leaf)

        assert second.digest() == digest_of(pairs)


class TestCheck:
    def test_covers_the_rows_that_were_buried_and_no_others(self) -> None:
        first = bury(2, 5)
        second = bury(3, 4, n=2, previous=first.hash)

        assert check([first, second], rows(1, 2, 3, 4, 5, 6)) == ({2, 3, 4, 5}, [])

    def test_one_that_nobody_signed_covers_nothing(self) -> None:
        stored = bury(2, 3)
        forged = replace(stored, signed=replace(stored.signed, signature=bytes(64)))

        covered, findings = check([forged], rows(1, 2, 3))

        assert covered == set()
        assert [finding.what for finding in findings] == ["its signature is not that of its key"]

    def test_one_of_a_strangers_key_covers_nothing(self) -> None:
        covered, findings = check([bury(2, signer=Ed25519Signer(bytes([8]) * 32))], rows(1, 2))

        assert covered == set()
        assert findings[0].what.endswith("which is not trusted")

    def test_one_with_other_rows_than_were_signed_covers_nothing(self) -> None:
        stored = replace(bury(2, 3), packed=RowSet(2, b"\x07").pack())

        covered, findings = check([stored], rows(1, 2, 3, 4))

        assert (covered, len(findings)) == (set(), 1)

    def test_one_that_is_gone_is_missed(self) -> None:
        first = bury(2)
        second = bury(3, n=2, previous=first.hash)

        covered, findings = check([second], rows(1, 2, 3))

        assert covered == {3}
        assert findings == [Finding(3, "tombstone 1", "missing")]

    def test_one_that_was_put_in_anothers_place_is_found(self) -> None:
        first = bury(2)
        other = bury(3, n=2, previous=bytes(32))

        covered, findings = check([first, other], rows(1, 2, 3))

        assert covered == {2}
        assert [finding.subject for finding in findings] == ["tombstone 2"]

    def test_one_of_another_chain_is_found(self) -> None:
        others = [(seq, RECORDED_AT, leaf_of(b"another"), b"") for seq in (1, 2, 3)]

        _, findings = check([bury(2, 3)], [*others])

        assert [finding.subject for finding in findings] == ["tombstone 1"]

    def test_one_whose_rows_are_not_there_is_found(self) -> None:
        _, findings = check([bury(7, 8)], rows(1, 2))

        assert [finding.subject for finding in findings] == ["tombstone 1"]

    @pytest.mark.parametrize(
        ("fields", "what"),
        [
            ({"period": date(2026, 3, 2)}, "its month is none"),
            ({"policy_days": 235}, "it was decided before its policy was over"),
            ({"policy_days": 2**31 - 1}, "it was decided before its policy was over"),
        ],
        ids=str,
    )
    def test_one_that_came_too_early_covers_nothing(
        self, fields: dict[str, Any], what: str
    ) -> None:
        covered, findings = check([bury(2, **fields)], rows(1, 2))

        assert (covered, [finding.what for finding in findings]) == (set(), [what])

    def test_one_on_the_day_its_policy_was_over_is_in_order(self) -> None:
        assert check([bury(2, policy_days=234)], rows(1, 2)) == ({2}, [])

    def test_rows_of_another_month_are_named(self) -> None:
        _, findings = check([bury(2, 3, period=date(2026, 2, 1))], rows(1, 2, 3))

        what = "not recorded in the month of tombstone 1"
        assert findings == [Finding(2, "row 2", what), Finding(3, "row 3", what)]
