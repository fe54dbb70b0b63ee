"""API keys that were revoked, rotated or cut are refused by two real processes; the full size."""

from pathlib import Path

from tests.acceptance import revocation, suites
from tests.acceptance.verdict import Verdict, all_of
from tests.key_kinds import KEY_KINDS


def no_key_is_let_in(_: Path) -> Verdict:
    return revocation.refuse_what_was_taken(KEY_KINDS)


def nothing_leaks(folder: Path) -> Verdict:
    returncode, counts, failed = suites.run_tests(
        folder,
        "tests/e2e/user/test_api_keys.py",
        "tests/e2e/user/test_service_accounts.py",
        "tests/unit/user/test_key_text.py",
        "tests/unit/user/test_key_authenticator.py",
        "tests/e2e/user/test_key_checks.py",
        "tests/e2e/user/test_key_rotation.py",
    )
    return all_of(
        (returncode == 0, f"{failed} of {counts['tests']} tests failed"),
        (counts["tests"] > 0, "shown once, checked first, bounded by the holder at each use"),
    )
