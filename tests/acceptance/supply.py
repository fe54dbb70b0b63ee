"""What comes from others: hashed, licensed, listed, and free of what is known to be bad."""

import re
import subprocess
from pathlib import Path

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict, all_of

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 900
CHECKS = ("hashes", "advisories", "sbom", "licences", "code", "image", "compose")


def chain_holds(_folder: Path) -> Verdict:
    """Run `make supply`; a check that could not be asked, marked `????`, is not met."""
    done = subprocess.run(
        ["make", "supply"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_SECONDS,
    )
    told = {
        line[2]: (line[1] == "ok", f"{line[2]}: {line[3]}")
        for line in re.finditer(r"(?m)^(ok|FAIL|\?{4}) +(\w+) +(.+)$", done.stdout)
    }
    return all_of(*(told.get(name, (False, f"{name}: not run")) for name in CHECKS))
