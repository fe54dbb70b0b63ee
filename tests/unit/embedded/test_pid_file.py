import os
from pathlib import Path

import pytest

from maas.embedded.postgres import _read_pid_file


@pytest.mark.timeout(60)
class TestReadPidFile:
    def test_gives_what_a_server_wrote(self, tmp_path: Path) -> None:
        path = tmp_path / "postmaster.pid"
        path.write_text("17\n")

        assert _read_pid_file(path) == "17\n"

    def test_takes_a_missing_file_for_an_empty_one(self, tmp_path: Path) -> None:
        assert _read_pid_file(tmp_path / "postmaster.pid") == ""

    def test_follows_no_link(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("secret")
        path = tmp_path / "postmaster.pid"
        path.symlink_to(secret)

        assert _read_pid_file(path) == ""

    def test_does_not_wait_for_a_pipe(self, tmp_path: Path) -> None:
        path = tmp_path / "postmaster.pid"
        os.mkfifo(path)

        assert _read_pid_file(path) == ""

    def test_reads_no_more_than_a_server_writes(self, tmp_path: Path) -> None:
        path = tmp_path / "postmaster.pid"
        path.write_bytes(b"x" * 100_000)

        assert len(_read_pid_file(path)) == 4096
