"""Warn of modules past 400 lines and refuse those past 600."""

import sys
from pathlib import Path

WARN_LINES = 400
MAX_LINES = 600


def main() -> int:
    too_long = False
    for path in sorted(Path("src").rglob("*.py")) + sorted(Path("tests").rglob("*.py")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            print(f"error: {path} has {lines} lines, more than {MAX_LINES}: split it by subject")
            too_long = True
        elif lines > WARN_LINES:
            print(f"warning: {path} has {lines} lines: is there a second subject in it?")
    return int(too_long)


if __name__ == "__main__":
    sys.exit(main())
