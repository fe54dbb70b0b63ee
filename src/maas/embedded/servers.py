"""The private servers together: started side by side, stopped one after the other."""

from dataclasses import dataclass

from maas.embedded import locator, provision
from maas.embedded.accounts import ServerAccount
from maas.embedded.credentials import Credentials
from maas.embedded.folders import DataFolder
from maas.embedded.postgres import PostgresServer
from maas.embedded.processes import Pulse
from maas.embedded.screen import Screen
from maas.embedded.stopping import StopSignals
from maas.embedded.valkey import ValkeyServer

_VALKEY_STOP_SECONDS = 1.0
_POSTGRES_STOP_SECONDS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Those that are ours; a server that the operator brought along is None."""

    postgres: PostgresServer | None
    valkey: ValkeyServer | None
    credentials: Credentials

    def start(self, *, screen: Screen, pulse: Pulse) -> None:
        """Start both and set up the database; Valkey comes up while `initdb` works.

        Raises:
            EmbeddedError: one of them did not start.
        """
        if self.postgres:
            screen.begin(self.postgres.title)
            self.postgres.begin()
        if self.valkey:
            screen.begin(self.valkey.title)
            self.valkey.start(pulse)
            screen.done(self.valkey.title)
        if self.postgres:
            self.postgres.start(pulse)
            provision.provision(self.postgres.folder.postgres_sockets, self.credentials)
            screen.done(self.postgres.title)

    def stop(self, *, screen: Screen, signals: StopSignals) -> None:
        """Stop Valkey, then PostgreSQL, and say so; does nothing for one that does not run."""
        services = ((self.valkey, _VALKEY_STOP_SECONDS), (self.postgres, _POSTGRES_STOP_SECONDS))
        for server, seconds in services:
            if server and server.is_started:
                step = f"Stopping {server.title}"
                screen.begin(step)
                server.stop(seconds=seconds, is_hurried=lambda: signals.is_hurried)
                screen.done(step)


def find_servers(
    folder: DataFolder,
    *,
    account: ServerAccount,
    credentials: Credentials,
    with_postgres: bool,
    with_valkey: bool,
) -> Servers:
    """Find the programs of the servers that are wanted.

    Raises:
        BinaryNotFoundError: one is not installed.
    """
    postgres = valkey = None
    if with_postgres:
        binaries = locator.find_postgres_binaries()
        postgres = PostgresServer(
            binaries=locator.reachable_postgres(binaries, copies=folder.binaries, account=account),
            folder=folder,
            account=account,
            password=credentials.superuser_password,
        )
    if with_valkey:
        binary = locator.find_valkey_binary()
        valkey = ValkeyServer(
            binary=locator.reachable_valkey(binary, copies=folder.binaries, account=account),
            folder=folder,
            account=account,
            password=credentials.valkey_password,
        )
    return Servers(postgres=postgres, valkey=valkey, credentials=credentials)
