"""A Valkey of one test's own, to be filled, stopped, killed and started again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from maas.embedded.accounts import get_server_account
from maas.embedded.locator import find_valkey_binary, reachable_valkey
from tests.servers import _free_port, _start_as

START_SECONDS = 30


class OwnValkey:
    """Starts at once, syncing every write; `stop` ends it and removes its folder."""

    def __init__(self) -> None:
        self._account = get_server_account()
        self._folder = Path(tempfile.mkdtemp(prefix="maas-own-valkey-"))
        self._hand_over(self._folder)
        copies = self._folder / "copies"
        copies.mkdir(mode=0o700)
        self._hand_over(copies)
        self._binary = reachable_valkey(find_valkey_binary(), copies=copies, account=self._account)
        self._port = _free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start on the same port and folder as before."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._process: subprocess.Popen[bytes] = _start_as(
                self._account, [str(self._binary), *arguments], log.fileno()
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with Redis.from_url(self.url) as client:
                    client.ping()
            except RedisConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def configure(self, name: str, value: str) -> None:
        with Redis.from_url(self.url) as client:
            client.config_set(name, value)

    def demote(self) -> None:
        """Make it a read-only replica of nobody."""
        with Redis.from_url(self.url) as client:
            client.replicaof("127.0.0.1", "9")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(START_SECONDS)

    def stop(self) -> None:
        if self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hand_over(self, path: Path) -> None:
        if self._account.is_switched:
            os.chown(path, self._account.uid, self._account.gid)
