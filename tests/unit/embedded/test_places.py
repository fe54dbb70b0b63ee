from pathlib import Path

import pytest

from maas.embedded.address import url_of
from maas.embedded.folders import default_data_dir, locate_data_folder

KERNEL_LIMIT_BYTES = 107


class TestDataFolder:
    @pytest.mark.parametrize("depth", [1, 5, 20])
    def test_sockets_fit_however_deep_it_lies(self, depth: int) -> None:
        folder = locate_data_folder(Path("/", *["somewhere"] * depth))

        longest = folder.postgres_sockets / ".s.PGSQL.5432"
        assert len(str(longest)) <= KERNEL_LIMIT_BYTES

    def test_deep_ones_share_no_sockets(self) -> None:
        deep = Path("/", *["somewhere"] * 20)

        assert locate_data_folder(deep / "a").sockets != locate_data_folder(deep / "b").sockets

    def test_is_the_system_s_for_root_and_the_user_s_otherwise(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/home/ada/state")

        monkeypatch.setattr("os.geteuid", lambda: 0)
        of_root = default_data_dir()
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        of_user = default_data_dir()

        assert (of_root, of_user) == (Path("/var/lib/maas"), Path("/home/ada/state/maas"))


class TestUrl:
    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:8000"),
            ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104  only spelled out
            ("::", "http://[::1]:8000"),
            ("maas.example", "http://maas.example:8000"),
        ],
    )
    def test_is_one_that_a_browser_here_can_open(self, host: str, url: str) -> None:
        assert url_of(host, 8000) == url
