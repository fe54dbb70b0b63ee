"""What may change in `config.yaml` without a restart: the log's level and the request limits."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from maas.shared.infrastructure.logging import set_log_level
from maas.shared.infrastructure.setting_sections import PREFIX
from maas.shared.infrastructure.setting_sources import YAML, flatten, read_given
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings, load_settings

LOOK_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 1.0
"""A file that has changed is read once it is the same for so long: it may be written right now."""

RELOADABLE: Final = (f"{PREFIX}LOG_LEVEL", f"{PREFIX}RATE_LIMITS__")
WIRED: Final = f"{PREFIX}RATE_LIMITS__ENABLED"
"""Whether there is a limiter at all is decided when a process is put together."""

_Mark: TypeAlias = tuple[int, int, int]

_log = structlog.get_logger(__name__)


class SettingsWatch:
    """Looks every few seconds whether the file is another, in a thread of its own.

    Settings in force are a frozen object, of which a new one takes the place. What is wrong in the
    file leaves everything as it was, and is told once; so is a file that is gone.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        apply: Callable[[Settings], None] | None = None,
        load: Callable[[], Settings] = load_settings,
        path: Path = YAML,
        every_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`apply` is given the settings that are in force from then on."""
        self.settings = settings
        self._apply = apply
        self._load = load
        self._path = path.absolute()
        self._every_seconds = every_seconds
        self._seen = self._read_mark()
        self._taken: _Mark | None = None
        """Of the file that was read last. It was another, maybe, when the settings were."""
        self._has_looked = False
        self._refused: tuple[_Mark | None, list[str]] | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maas-settings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more; it may be looking right now."""
        self._is_over.set()

    def join(self) -> None:
        """Wait for the end of the thread that was stopped."""
        self._thread.join()

    def look(self) -> bool:
        """Apply what may change, if the file did, and say what may not.

        Tells whether the file changes right now, so that it is to be looked at again soon.
        """
        mark = self._read_mark()
        before, self._seen = self._seen, mark
        if mark != before:
            return True
        is_first, self._has_looked = not self._has_looked, True
        if mark == self._taken:
            self._refused = None
            return False
        try:
            if mark is None:
                message = f"{self._path.name} is gone"
                raise InvalidSettingsError([message])  # noqa: TRY301  told as other problems are
            told, hidden = self._load(), _find_hidden()
        except InvalidSettingsError as exc:
            return self._refuse(exc, mark)
        if self._read_mark() != mark:
            return True
        self._taken, self._refused = mark, None
        self._take(told, hidden, is_first=is_first)
        return False

    def _refuse(self, exc: InvalidSettingsError, mark: _Mark | None) -> bool:
        """Leave all as it is; the next look tries again, since a key file may be what was missing.

        Tells whether the file was another by the time it was refused.
        """
        if self._read_mark() != mark:
            return True
        if self._refused != (mark, exc.problems):
            self._refused = mark, exc.problems
            _log.warning("config_not_reloaded", problems=exc.problems)
        return False

    def _take(self, told: Settings, hidden: list[str], *, is_first: bool) -> None:
        changed = _changes(self.settings, told)
        fresh = [name for name in changed if name.startswith(RELOADABLE) and name != WIRED]
        if fresh:
            limits = told.rate_limits.model_copy(
                update={"enabled": self.settings.rate_limits.enabled}
            )
            update = {"log_level": told.log_level, "rate_limits": limits}
            self.settings = self.settings.model_copy(update=update)
            if self._apply is not None:
                self._apply(self.settings)
        # In any case: a process that was forked has the level that its parent had by then.
        set_log_level(self.settings.effective_log_level)
        stale = [name for name in changed if name not in fresh]
        if fresh or not (stale or is_first):
            _log.info("config_reloaded", variables=fresh, hidden=hidden)
        if stale:
            _log.warning("config_needs_restart", variables=stale, hidden=hidden)

    def _run(self) -> None:
        seconds = self._every_seconds
        while not self._is_over.wait(seconds):
            seconds = self._every_seconds
            try:
                if self.look():
                    seconds = min(seconds, SETTLE_SECONDS)
            except Exception:  # noqa: BLE001  else nobody would look again, or know of it
                _log.exception("config_watch_failed")

    def _read_mark(self) -> _Mark | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _changes(before: Settings, after: Settings) -> list[str]:
    """Name the variables that differ; never their values, which may be secrets."""
    old: Mapping[str, object] = dict(flatten(before))
    return [name for name, value in flatten(after) if old[name] != value]


def _find_hidden() -> list[str]:
    """Name what the file says in vain: the environment or `.env` say it too, and are stronger."""
    given = read_given()
    return sorted(name for name in given.sources[YAML.name] if given.source_of(name) != YAML.name)
