"""Where the ring of sealing keys comes from: a file, the environment, and a KMS before either.

The key that follows from the server's secret is always the oldest: what was sealed before there
were keys stays readable.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from threading import Thread
from typing import Final, Protocol

import structlog

from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_ciphers import CIPHERS, is_supported
from maas.shared.infrastructure.sealing_key_file import (
    KeptKey,
    read_base64,
    read_key_file,
)
from maas.shared.infrastructure.sealing_ring import (
    FixedKeys,
    KeyRing,
    KeySource,
    RingKey,
    UnfitRingError,
)
from maas.shared.infrastructure.settings import (
    DEFAULT_DATA_DIR,
    InvalidSettingsError,
    Settings,
)

KEY_FILE_NAME: Final = "sealing-keys.json"
SOURCES_KEPT: Final = 8
RETRY_SECONDS: Final = 5.0
"""So long after a failure the file, and the KMS, are left alone; after the next twice as long."""

MAX_RETRY_SECONDS: Final = 60.0
KMS_SECONDS: Final = 2.0
"""So long a process that serves waits for the KMS: its loop stands still meanwhile."""

GRACE_SECONDS: Final = 60.0
"""So long a key that was taken out still opens what was read a moment before."""

log = structlog.get_logger(__name__)


class KeyManagement(Protocol):
    """A service that keeps a key nobody sees, and wraps ours with it; both calls may block."""

    def wrap(self, key: bytes) -> bytes: ...

    def unwrap(self, wrapped: bytes) -> bytes: ...


class PatientKms:
    """Asks a KMS in a thread, and waits for a while; who asks again later hears the answer."""

    def __init__(self, kms: KeyManagement, *, seconds: float) -> None:
        self._kms = kms
        self._seconds = seconds
        self._asked: dict[bytes, Future[bytes]] = {}

    def wrap(self, key: bytes) -> bytes:
        return self._kms.wrap(key)

    def unwrap(self, wrapped: bytes) -> bytes:
        answer = self._asked.get(wrapped)
        if answer is None:
            answer = self._asked[wrapped] = Future()
            # A thread that hangs must not keep the process from ending, as a pool's would.
            Thread(target=self._ask, args=(wrapped, answer), daemon=True).start()
        try:
            return answer.result(self._seconds)
        finally:
            if answer.done():
                self._asked.pop(wrapped, None)

    def _ask(self, wrapped: bytes, answer: "Future[bytes]") -> None:
        try:
            answer.set_result(self._kms.unwrap(wrapped))
        except Exception as exc:  # noqa: BLE001  a KMS raises what it likes, and who asked gets it
            answer.set_exception(exc)


class FileKeys:
    """The ring of a file, read again once the file is another.

    A file that cannot be read any more leaves the ring as it was: it is no reason to stop serving.
    """

    def __init__(
        self,
        path: Path,
        *,
        derived: Sequence[RingKey],
        kms: KeyManagement | None = None,
        must_exist: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
        kms_seconds: float = KMS_SECONDS,
    ) -> None:
        self._path = path
        self._derived = derived
        self._kms: KeyManagement | None = kms
        self._must_exist = must_exist
        self._monotonic = monotonic
        self._unwrapped: dict[bytes, RingKey] = {}
        self._leaving: dict[RingKey, float] = {}
        self._failures = 0
        self._retry_at = 0.0
        self._seen = self._stamp()
        self._ring = self._read()
        # Nobody was served before this.
        self._kms = None if kms is None else PatientKms(kms, seconds=kms_seconds)

    def ring(self) -> KeyRing:
        is_another = self._stamp() != self._seen or self._has_left()
        return self.read_again() if is_another else self._ring

    def read_again(self) -> KeyRing:
        if self._monotonic() < self._retry_at:
            return self._ring
        # Looked at before it is read: a change in between is seen the next time.
        seen = self._stamp()
        try:
            self._ring = self._read()
        except Exception as exc:  # noqa: BLE001  a KMS raises what it likes, and serving goes on
            pause = min(RETRY_SECONDS * 2**self._failures, MAX_RETRY_SECONDS)
            self._failures, self._retry_at = self._failures + 1, self._monotonic() + pause
            log.error("sealing_keys_not_read", path=str(self._path), error=type(exc).__name__)  # noqa: TRY400  a traceback could show keys
        else:
            self._seen, self._failures = seen, 0
        return self._ring

    def _has_left(self) -> bool:
        return any(until <= self._monotonic() for until in self._leaving.values())

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  two microseconds, before each seal
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> KeyRing:
        try:
            content = read_key_file(self._path)
        except FileNotFoundError:
            # Lost while in use, it is not the same as never having been there.
            if self._must_exist or self._unwrapped:
                raise
            return KeyRing(tuple(self._derived), self._derived[0])
        keys = [self._key(kept) for kept in content.keys]
        current = next((key for key in keys if key.id.hex() == content.current), self._derived[0])
        return KeyRing((*keys, *self._derived), current, self._note_leaving(keys))

    def _note_leaving(self, keys: Sequence[RingKey]) -> Sequence[RingKey]:
        now = self._monotonic()
        for secret, key in list(self._unwrapped.items()):
            if key in keys:
                self._leaving.pop(key, None)
            elif self._leaving.setdefault(key, now + GRACE_SECONDS) <= now:
                del self._unwrapped[secret], self._leaving[key]
        return list(self._leaving)

    def _key(self, kept: KeptKey) -> RingKey:
        found = self._unwrapped.get(kept.secret)
        if found is None:
            found = RingKey.of(_unwrap(kept.secret, self._kms if kept.is_wrapped else None))
            if kept.is_wrapped and self._kms is None:
                message = f"{self._path} holds wrapped keys: set MAAS_SEALING__KMS"
                raise UnfitRingError(message)
            if found.id.hex() != kept.id:
                message = f"{self._path} holds a key that is not the one of its id"
                raise UnfitRingError(message)
            self._unwrapped[kept.secret] = found
        return found


def _unwrap(secret: bytes, kms: KeyManagement | None) -> bytes:
    return secret if kms is None else kms.unwrap(secret)


def build_sealer(settings: Settings) -> Sealer:
    """Build what seals, over a ring that all of the process shares.

    Raises:
        InvalidSettingsError: the keys that are set cannot be used, or the cipher.
    """
    _refuse_unfit_cipher(settings)
    return Sealer(open_key_source(settings), algorithm=settings.sealing.algorithm)


def open_key_source(settings: Settings) -> KeySource:
    """Find the ring's source, one for the whole process, for a KMS is not asked twice.

    Raises:
        InvalidSettingsError: the keys that are set cannot be used.
    """
    return _open(*_named(settings))


def read_ring(settings: Settings) -> KeyRing:
    """Read the ring once, and keep nothing open that processes forked later would share.

    Raises:
        InvalidSettingsError: as `build_sealer` does.
    """
    _refuse_unfit_cipher(settings)
    return _open.__wrapped__(*_named(settings)).ring()


def _refuse_unfit_cipher(settings: Settings) -> None:
    if not is_supported(CIPHERS[settings.sealing.algorithm]):
        problem = "MAAS_SEALING__ALGORITHM: this system's OpenSSL has no SM4, or no SM3"
        raise InvalidSettingsError([problem])


def _named(settings: Settings) -> tuple[Sequence[str], str | None, Path, bool, str | None]:
    sealing, keys = settings.sealing, settings.sealing.keys
    secrets = (settings.secret_key, settings.auth.previous_secret_key)
    return (
        tuple(secret.get_secret_value() for secret in secrets if secret is not None),
        None if keys is None else keys.get_secret_value(),
        key_file_path(settings),
        sealing.keys_file is not None,
        sealing.kms,
    )


def key_file_path(settings: Settings) -> Path:
    """Tell where the file of keys is, or would be."""
    folder = settings.data_dir or DEFAULT_DATA_DIR
    return (settings.sealing.keys_file or folder / KEY_FILE_NAME).absolute()


def load_kms(name: str | None) -> KeyManagement | None:
    """Import the KMS that is set, if one is.

    Raises:
        InvalidSettingsError: there is no such function, or it fails.
    """
    if name is None:
        return None
    try:
        function = resolve_name(name)
    except (ImportError, AttributeError) as exc:
        problem = f"MAAS_SEALING__KMS names nothing that can be imported: {exc}"
        raise InvalidSettingsError([problem]) from None
    try:
        kms: KeyManagement = function()
    except Exception as exc:  # noqa: BLE001  it is the operator's own, and raises what it likes
        problem = f"MAAS_SEALING__KMS: {name} could not be called ({type(exc).__name__})"
        raise InvalidSettingsError([problem]) from None
    return kms


@lru_cache(maxsize=SOURCES_KEPT)
def _open(
    secret_keys: Sequence[str],
    listed: str | None,
    path: Path,
    must_exist: bool,  # noqa: FBT001  what is cached is named by position
    kms_name: str | None,
) -> KeySource:
    derived = [RingKey.derived(secret) for secret in secret_keys]
    kms = load_kms(kms_name)
    variable = "MAAS_SEALING__KEYS"
    try:
        if listed is not None:
            return FixedKeys([*_listed(listed, kms), *derived])
        variable = "MAAS_SEALING__KEYS_FILE"
        return FileKeys(path, derived=derived, kms=kms, must_exist=must_exist)
    except UnfitRingError as exc:
        raise InvalidSettingsError([f"{variable}: {exc}"]) from None
    except OSError as exc:
        advice = "; `maas keys add` makes it" if isinstance(exc, FileNotFoundError) else ""
        problem = f"{variable}: {path} cannot be read ({exc.strerror}){advice}"
        raise InvalidSettingsError([problem]) from None
    except Exception as exc:  # noqa: BLE001  a KMS raises what it likes
        problem = f"{variable}: a key could not be unwrapped ({type(exc).__name__})"
        raise InvalidSettingsError([problem]) from None


def _listed(text: str, kms: KeyManagement | None) -> list[RingKey]:
    try:
        secrets = [read_base64(part) for part in text.split(",")]
    except ValueError as exc:
        message = "needs keys in base64, the newest first, with commas between them"
        raise UnfitRingError(message) from exc
    return [RingKey.of(_unwrap(secret, kms)) for secret in secrets]
