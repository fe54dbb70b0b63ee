"""The command `maas` before it is any command."""

import subprocess
import sys
from pathlib import Path

import pytest

from maas.start import main


def test_ctrl_c_while_it_loads_ends_it_without_a_traceback(tmp_path: Path) -> None:
    tmp_path.joinpath("typer.py").write_text("raise KeyboardInterrupt\n")
    start = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from maas.start import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_it_is_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["maas", "no-such-command"])

    with pytest.raises(SystemExit, match="2"):
        main()

    assert "No such command 'no-such-command'" in capsys.readouterr().err
