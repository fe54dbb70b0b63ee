"""What a platform that is up lends to other commands, where they are given nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maas.embedded.endpoints import SIGNING_KEY_VARIABLE, find_running
from maas.embedded.errors import EmbeddedError
from maas.embedded.folders import default_data_dir
from maas.shared.infrastructure.setting_sources import GivenSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """Variables to add to the environment; none where nothing is up."""

    folder: Path
    variables: Mapping[str, str]

    @property
    def has_servers(self) -> bool:
        return any(name.endswith("URL") for name in self.variables)


def lend_running(given: GivenSettings) -> Lent:
    """Find what is up on the data folder, and leave out every server that was given.

    A server's URLs go together: with a database of one's own, none of the platform's is lent.
    """
    folder = Path(given.find("MAAS_DATA_DIR") or default_data_dir())
    try:
        running = find_running(folder)
    except (EmbeddedError, OSError):
        running = None
    if running is None:
        return Lent(folder=folder, variables={})
    is_given = {name: given.find(f"MAAS_{name}__URL") is not None for name in ("DATABASE", "REDIS")}
    return Lent(
        folder=folder,
        variables={
            name: value
            for name, value in running.environment().items()
            if given.find(name) is None
            and not is_given.get(_section_of(name), False)
            and not (name == SIGNING_KEY_VARIABLE and given.find("MAAS_AUTH__PRIVATE_KEY"))
        },
    )


def _section_of(variable: str) -> str:
    return variable.removeprefix("MAAS_").partition("__")[0]
