"""Processes that hold secrets leave no core when they crash."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from typer.main import get_group
from typer.testing import CliRunner

from maas import cli, main

COMMANDS = sorted(get_group(cli.app).commands)
TOLD = """
import ctypes, resource
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3))
"""
FORBID = """
from maas.shared.infrastructure.core_dumps import forbid_core_dumps
forbid_core_dumps()
"""


def told_after(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code + TOLD], capture_output=True, check=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_a_process_leaves_none_once_it_said_so() -> None:
    assert told_after("").endswith(" 1")
    assert told_after(FORBID) == "(0, 0) 0"


def test_what_serves_the_api_says_so_before_it_reads_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    settings = SimpleNamespace(effective_log_level="INFO", log_format="json")

    def read() -> SimpleNamespace:
        done.append("settings")
        return settings

    monkeypatch.setattr(main, "forbid_core_dumps", lambda: done.append("no cores"))
    monkeypatch.setattr(main, "load_settings", read)
    monkeypatch.setattr(main, "configure_logging", lambda **_: None)
    monkeypatch.setattr(main, "_spare_the_collector", lambda: None)
    monkeypatch.setattr(main, "create_app", lambda _, **__: FastAPI())

    main.make_app()

    assert done == ["no cores", "settings"]


@pytest.mark.parametrize("command", COMMANDS)
def test_so_does_every_command_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    done: list[str] = []
    monkeypatch.setattr(cli, "forbid_core_dumps", lambda: done.append("no cores"))

    refused = CliRunner().invoke(cli.app, [command, "--no-such-option"])

    assert (refused.exit_code, done) == (2, ["no cores"])
