"""Following the chain costs the same however much of it was changed."""

import os
from datetime import UTC, datetime

from maas.audit.domain.chain import GENESIS, micros, row_hash
from maas.audit.domain.chain_check import ChainCheck
from maas.audit.domain.findings import Findings

AT = datetime(2026, 11, 22, tzinfo=UTC)


def check_of(findings: Findings) -> ChainCheck:
    return ChainCheck(keys={}, is_signed=lambda *_: True, findings=findings)


def test_rows_that_all_are_wrong_are_counted_in_no_time() -> None:
    findings, count = Findings(), 15_000

    check_of(findings).take_rows(
        [(seq, AT, os.urandom(32), os.urandom(32)) for seq in range(1, count + 1)]
    )

    assert findings.count == count


def test_the_row_after_a_hundred_changed_hashes_follows_from_what_they_were() -> None:
    findings, rows, last = Findings(), [], GENESIS
    for seq in range(1, 151):
        leaf = os.urandom(32)
        last = row_hash(last, seq=seq, recorded_micros=micros(AT), leaf=leaf)
        rows.append((seq, AT, leaf, os.urandom(32) if seq <= 100 else last))

    check_of(findings).take_rows(rows)

    assert [finding.seq for finding in findings] == list(range(1, 101))
