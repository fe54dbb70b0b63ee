"""The private servers without the platform, for work on a data folder that nothing runs on."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from maas.embedded import leftovers
from maas.embedded.accounts import get_server_account
from maas.embedded.credentials import open_credentials
from maas.embedded.endpoints import Endpoints
from maas.embedded.folders import DataFolder, locate_data_folder, open_data_folder
from maas.embedded.lock import FolderLock, Holder
from maas.embedded.screen import Screen
from maas.embedded.servers import find_servers
from maas.embedded.stopping import StopSignals


def has_database(data_dir: Path) -> bool:
    """Tell whether a platform was ever started on this folder."""
    return (locate_data_folder(data_dir).postgres / "PG_VERSION").exists()


@contextmanager
def private_servers(
    data_dir: Path, *, with_postgres: bool = True, with_valkey: bool = True
) -> Iterator[Mapping[str, str]]:
    """Run the servers of a data folder for a block, and lend the settings that lead to them.

    Raises:
        AlreadyRunningError: a platform is up on it.
        EmbeddedError: one of them does not start.
    """
    account, screen = get_server_account(), Screen(sys.stderr)
    with ExitStack() as stack:
        folder = open_data_folder(data_dir, account)
        lock = stack.enter_context(FolderLock(folder.lock_file))
        stack.callback(folder.tidy)
        lock.tell(Holder(pid=os.getpid(), url="a backup or a restore"))
        if lock.was_left_behind:
            _clear_leftovers(folder)
        with StopSignals() as signals:
            opened = open_credentials(
                folder.secrets_file, may_generate=not folder.postgres.exists()
            )
            servers = find_servers(
                folder,
                account=account,
                credentials=opened.credentials,
                with_postgres=with_postgres,
                with_valkey=with_valkey,
            )
            stack.callback(servers.stop, screen=screen, signals=signals)
            servers.start(screen=screen, pulse=signals.pulse)
        yield Endpoints(
            folder=folder,
            credentials=opened.credentials,
            has_postgres=with_postgres,
            has_valkey=with_valkey,
            has_signing_key=folder.signing_key_file.exists(),
            has_audit_key=folder.audit_key_file.exists(),
        ).environment()


def _clear_leftovers(folder: DataFolder) -> None:
    leftovers.stop_spawned(folder)
    leftovers.stop_working_in(folder.valkey)
    leftovers.stop_working_in(folder.postgres)
