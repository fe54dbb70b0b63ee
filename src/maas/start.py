"""The command `maas`, from its first moment on."""

import sys
from importlib import import_module

INTERRUPTED = 130
"""The shell's code for a command that Ctrl-C ended."""


def main() -> None:
    """Run the command line; Ctrl-C while it still loads ends it without a word.

    That takes a second or more, and what comes later has its own way to stop.
    """
    try:
        import_module("maas.cli").app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
