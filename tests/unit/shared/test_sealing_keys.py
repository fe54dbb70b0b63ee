"""Where sealing keys come from, and how a process hears of new ones."""

import base64
import json
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from structlog.testing import capture_logs
from typing_extensions import override

from maas.shared.infrastructure import sealing, sealing_keys
from maas.shared.infrastructure.sealing import Place, Sealer, SecretUnreadableError, key_id_of
from maas.shared.infrastructure.sealing_ciphers import CIPHERS
from maas.shared.infrastructure.sealing_key_file import (
    KeyChangeRefusedError,
    KeyFile,
    changing_key_file,
    read_key_file,
)
from maas.shared.infrastructure.sealing_keys import (
    GRACE_SECONDS,
    MAX_RETRY_SECONDS,
    RETRY_SECONDS,
    FileKeys,
    build_sealer,
    read_ring,
)
from maas.shared.infrastructure.sealing_ring import FixedKeys, RingKey, UnfitRingError
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings, load_settings

SECRET_KEY = "unit-tests-0123456789-abcdefghijklmnopqrstuvwxyz"
PLACE = Place(table="webhooks", row="1", column="secret", tenant="t")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ONE, TWO, THREE = (RingKey.of(bytes([number]) * 32) for number in (1, 2, 3))
DERIVED = RingKey.derived(SECRET_KEY)
NOBODY = 65534


class UpsideDown:
    """A KMS whose wrapping anybody could undo; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def wrap(self, key: bytes) -> bytes:
        return key[::-1]

    def unwrap(self, wrapped: bytes) -> bytes:
        self.asked += 1
        return wrapped[::-1]


class Moody(UpsideDown):
    is_away = False

    @override
    def unwrap(self, wrapped: bytes) -> bytes:
        plain = super().unwrap(wrapped)
        if self.is_away:
            raise ConnectionError
        return plain


class Slow(UpsideDown):
    """A KMS that answers once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = Event()

    @override
    def unwrap(self, wrapped: bytes) -> bytes:
        plain = super().unwrap(wrapped)
        assert self.may_answer.wait(10)
        return plain


def open_upside_down() -> UpsideDown:
    return UpsideDown()


def open_nothing() -> UpsideDown:
    message = "no region"
    raise ValueError(message)


def lack_sm3(_key: bytes) -> bytes:
    message = "no SM3"
    raise UnsupportedAlgorithm(message)


def settings_with(**given: object) -> Settings:
    return load_settings(
        secret_key=SECRET_KEY,
        database={"url": "postgresql://unused"},
        redis={"url": "redis://unused"},
        sealing=given,
    )


def add(path: Path, key: RingKey, *, secret: bytes | None = None) -> None:
    with changing_key_file(path) as content:
        content[0] = content[0].adding(
            key.id.hex(), secret or key.secret, is_wrapped=secret is not None, at=NOW
        )


def rotate(path: Path) -> None:
    with changing_key_file(path) as content:
        content[0] = content[0].rotated()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "sealing.json"


@pytest.fixture
def keys(path: Path) -> FileKeys:
    return FileKeys(path, derived=[DERIVED], must_exist=False)


class TestFile:
    def test_it_is_private_and_says_what_it_holds(self, path: Path) -> None:
        add(path, ONE)
        rotate(path)

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text()) == {
            "version": 1,
            "current": ONE.id.hex(),
            "keys": [
                {
                    "id": ONE.id.hex(),
                    "key": base64.b64encode(ONE.secret).decode(),
                    "made_at": "2026-11-22T12:00:00+00:00",
                }
            ],
        }

    def test_a_refused_change_leaves_it_as_it_was(self, path: Path) -> None:
        add(path, ONE)
        before = path.read_bytes()

        with pytest.raises(KeyChangeRefusedError), changing_key_file(path) as content:
            content[0] = content[0].without(ONE.id.hex())

        assert path.read_bytes() == before

    def test_nothing_newer_is_nothing_to_rotate_to(self, path: Path) -> None:
        with pytest.raises(KeyChangeRefusedError):
            KeyFile().rotated()
        add(path, ONE)
        rotate(path)
        with pytest.raises(KeyChangeRefusedError):
            rotate(path)

    def test_only_an_older_key_goes(self, path: Path) -> None:
        for key in (ONE, TWO):
            add(path, key)
            rotate(path)
        add(path, THREE)
        content = read_key_file(path)

        assert [key.id for key in content.without(ONE.id.hex()).keys] == [
            THREE.id.hex(),
            TWO.id.hex(),
        ]
        for key in (TWO, THREE):
            with pytest.raises(KeyChangeRefusedError):
                content.without(key.id.hex())

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            '{"version": 2, "current": null, "keys": []}',
            '{"version": 1, "current": "gone", "keys": []}',
            '{"version": 1, "current": null, "keys": [{"id": "a", "key": "!", "made_at": "b"}]}',
            '{"version": 1, "current": null, "keys": [{"id": "a", "made_at": "b"}]}',
        ],
    )
    def test_what_is_no_such_file_is_told_without_showing_it(self, path: Path, text: str) -> None:
        path.parent.mkdir()
        path.write_text(text)

        with pytest.raises(UnfitRingError, match="no file of sealing keys") as caught:
            read_key_file(path)

        assert caught.value.__suppress_context__

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
    def test_made_by_root_it_belongs_to_whom_the_folder_does(self, path: Path) -> None:
        path.parent.mkdir()
        os.chown(path.parent, NOBODY, NOBODY)

        add(path, ONE)
        rotate(path)

        owners = {(each.stat().st_uid, each.stat().st_gid) for each in path.parent.iterdir()}
        assert owners == {(NOBODY, NOBODY)}
        assert len(list(path.parent.iterdir())) == 2

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
    def test_changed_by_root_it_keeps_its_owner(self, path: Path) -> None:
        add(path, ONE)
        os.chown(path, NOBODY, NOBODY)

        rotate(path)

        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)

    def test_behind_a_link_the_file_itself_is_changed(self, path: Path, tmp_path: Path) -> None:
        add(path, ONE)
        link = tmp_path / "link.json"
        link.symlink_to(path)

        add(link, TWO)

        assert link.is_symlink()
        assert len(read_key_file(path).keys) == 2
        assert not link.with_name("link.json.lock").exists()

    def test_a_key_under_another_ones_id_is_noticed(self, path: Path) -> None:
        add(path, RingKey(ONE.id, TWO.secret))

        with pytest.raises(UnfitRingError, match="not the one of its id"):
            FileKeys(path, derived=[DERIVED])


class TestChanges:
    def test_without_a_file_the_derived_key_seals(self, keys: FileKeys) -> None:
        assert keys.ring().current == DERIVED

    def test_a_key_opens_once_it_is_there_and_seals_once_it_is_current(
        self, keys: FileKeys, path: Path
    ) -> None:
        add(path, ONE)
        added = keys.ring()
        rotate(path)
        rotated = keys.ring()

        assert (added.find(ONE.id), added.current, added.older) == (ONE, DERIVED, ())
        assert (rotated.current, rotated.older) == (ONE, (DERIVED,))

    def test_a_running_process_seals_under_the_new_key_and_reads_what_others_did(
        self, path: Path
    ) -> None:
        first, second = (
            Sealer(FileKeys(path, derived=[DERIVED], must_exist=False)) for _ in range(2)
        )
        before = first.seal(b"before", PLACE)
        add(path, ONE)
        rotate(path)

        after = first.seal(b"after", PLACE)

        assert (key_id_of(before), key_id_of(after)) == (DERIVED.id, ONE.id)
        assert (second.open(before, PLACE), second.open(after, PLACE)) == (b"before", b"after")

    def test_a_key_that_is_not_known_is_looked_for_in_the_file_even_if_it_looks_the_same(
        self, path: Path
    ) -> None:
        add(path, ONE)
        rotate(path)
        late = FileKeys(path, derived=[DERIVED])
        found = path.stat()
        text = path.read_text()
        text = text.replace(ONE.id.hex(), TWO.id.hex())
        one, two = (base64.b64encode(key.secret).decode() for key in (ONE, TWO))
        text = text.replace(one, two)
        path.write_text(text)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        sealed = Sealer(FileKeys(path, derived=[DERIVED])).seal(b"plain", PLACE)

        assert late.ring().find(TWO.id) is None
        assert Sealer(late).open(sealed, PLACE) == b"plain"

    def test_a_file_that_breaks_in_use_leaves_the_ring_as_it_was(
        self, keys: FileKeys, path: Path
    ) -> None:
        add(path, ONE)
        rotate(path)
        assert keys.ring().current == ONE

        path.write_text("{")
        broken = keys.ring().current
        path.unlink()
        lost = keys.ring().current

        assert (broken, lost) == (ONE, ONE)

    def test_a_key_that_was_taken_out_opens_for_a_moment_more(self, path: Path) -> None:
        now = [0.0]
        keys = FileKeys(path, derived=[DERIVED], must_exist=False, monotonic=lambda: now[0])
        add(path, ONE)
        rotate(path)
        sealed = Sealer(keys).seal(b"plain", PLACE)
        add(path, TWO)
        rotate(path)
        with changing_key_file(path) as content:
            content[0] = content[0].without(ONE.id.hex())

        assert Sealer(keys).open(sealed, PLACE) == b"plain"
        now[0] += GRACE_SECONDS
        with pytest.raises(SecretUnreadableError):
            Sealer(keys).open(sealed, PLACE)

    def test_one_that_was_put_back_stays(self, path: Path) -> None:
        now = [0.0]
        keys = FileKeys(path, derived=[DERIVED], must_exist=False, monotonic=lambda: now[0])
        add(path, ONE)
        keys.ring()
        kept = path.read_text()
        with changing_key_file(path) as content:
            content[0] = KeyFile()
        keys.ring()
        path.write_text(kept)
        keys.ring()
        now[0] += 2 * GRACE_SECONDS

        assert keys.ring().find(ONE.id) == ONE

    def test_one_that_is_unreadable_is_left_alone_for_a_while_whoever_asks(
        self, path: Path
    ) -> None:
        now = [0.0]
        keys = FileKeys(path, derived=[DERIVED], must_exist=False, monotonic=lambda: now[0])
        add(path, ONE)
        rotate(path)
        keys.ring()
        add(path, TWO)
        rotate(path)
        with changing_key_file(path) as content:
            content[0] = content[0].without(ONE.id.hex())
        keys.ring()
        path.write_text("{")
        # What is leaving is due, and a value names a key that is not known.
        now[0] += GRACE_SECONDS
        stranger = Sealer(FixedKeys([THREE])).seal(b"plain", PLACE)

        with capture_logs() as logs:
            for _ in range(3):
                keys.ring()
                with pytest.raises(SecretUnreadableError):
                    Sealer(keys).open(stranger, PLACE)
            now[0] += RETRY_SECONDS
            keys.ring()

        assert [each["event"] for each in logs] == ["sealing_keys_not_read"] * 2


class TestKms:
    def test_the_file_holds_wrapped_keys_alone(self, path: Path) -> None:
        kms = UpsideDown()
        secret = bytes(range(32))
        key = RingKey.of(secret)
        add(path, key, secret=kms.wrap(secret))
        rotate(path)

        assert FileKeys(path, derived=[DERIVED], kms=kms).ring().current == key
        assert base64.b64encode(secret).decode() not in path.read_text()

    def test_it_is_asked_once_a_key(self, path: Path) -> None:
        kms = UpsideDown()
        add(path, ONE, secret=kms.wrap(ONE.secret))
        keys = FileKeys(path, derived=[DERIVED], kms=kms)

        for _ in range(3):
            keys.read_again()
        add(path, TWO, secret=kms.wrap(TWO.secret))
        keys.ring()

        assert kms.asked == 2

    def test_wrapped_keys_without_it_are_refused(self, path: Path) -> None:
        add(path, ONE, secret=bytes(reversed(range(32))))

        with pytest.raises(UnfitRingError, match="MAAS_SEALING__KMS"):
            FileKeys(path, derived=[DERIVED])

    def test_one_that_is_away_is_asked_again_after_a_while(self, path: Path) -> None:
        now, kms = [0.0], Moody()
        add(path, ONE, secret=kms.wrap(ONE.secret))
        rotate(path)
        keys = FileKeys(path, derived=[DERIVED], kms=kms, monotonic=lambda: now[0])
        kms.is_away = True
        add(path, TWO, secret=kms.wrap(TWO.secret))
        rotate(path)

        while_away = [keys.ring().current for _ in range(3)]
        asked, kms.is_away = kms.asked, False
        too_soon = keys.ring().current
        now[0] += RETRY_SECONDS

        assert (while_away, asked, too_soon) == ([ONE] * 3, 2, ONE)
        assert keys.ring().current == TWO

    def test_one_that_does_not_answer_is_not_waited_for_and_heard_later(self, path: Path) -> None:
        now, kms = [0.0], Slow()
        add(path, ONE, secret=kms.wrap(ONE.secret))
        rotate(path)
        kms.may_answer.set()
        keys = FileKeys(
            path, derived=[DERIVED], kms=kms, monotonic=lambda: now[0], kms_seconds=0.02
        )
        kms.may_answer.clear()
        add(path, TWO, secret=kms.wrap(TWO.secret))
        rotate(path)

        while_silent = keys.ring().current
        now[0] += RETRY_SECONDS
        still = keys.ring().current
        asked = kms.asked
        kms.may_answer.set()
        later: list[RingKey] = []
        while TWO not in later and len(later) < 500:
            now[0] += MAX_RETRY_SECONDS
            later.append(keys.ring().current)

        assert (while_silent, still, asked) == (ONE, ONE, 2)
        assert later[-1] == TWO
        assert kms.asked == 2

    def test_one_that_stays_away_is_asked_less_and_less(self, path: Path) -> None:
        now, kms = [0.0], Moody()
        add(path, ONE, secret=kms.wrap(ONE.secret))
        keys = FileKeys(path, derived=[DERIVED], kms=kms, monotonic=lambda: now[0])
        kms.is_away = True
        add(path, TWO, secret=kms.wrap(TWO.secret))
        rotate(path)

        times = []
        for second in range(200):
            now[0], before = float(second), kms.asked
            keys.ring()
            times += [second] * (kms.asked - before)
        kms.is_away = False
        now[0] += MAX_RETRY_SECONDS
        keys.ring()

        assert times == [0, 5, 15, 35, 75, 135, 195]
        assert keys.ring().current == TWO


class TestSettings:
    def test_keys_in_the_environment_come_the_newest_first(self) -> None:
        listed = ",".join(base64.urlsafe_b64encode(key.secret).decode() for key in (TWO, ONE))

        sealer = build_sealer(settings_with(keys=listed))

        assert key_id_of(sealer.seal(b"", PLACE)) == TWO.id
        assert sealer.older_keys() == [ONE.id, DERIVED.id]

    def test_one_put_second_opens_for_those_who_have_it_first(self) -> None:
        both = Sealer(FixedKeys([ONE, TWO]))
        sealed = Sealer(FixedKeys([TWO, ONE])).seal(b"plain", PLACE)

        assert both.open(sealed, PLACE) == b"plain"
        assert both.older_keys() == [TWO.id]

    def test_they_may_be_wrapped(self) -> None:
        listed = base64.b64encode(UpsideDown().wrap(bytes(range(32)))).decode()

        sealer = build_sealer(
            settings_with(keys=listed, kms=f"{__name__}:{open_upside_down.__name__}")
        )

        assert key_id_of(sealer.seal(b"", PLACE)) == RingKey.of(bytes(range(32))).id

    @pytest.mark.parametrize("keys", ["short", "c2hvcnQ=", ",", "schlüssel"])
    def test_what_is_no_key_is_refused_without_showing_it(self, keys: str) -> None:
        with pytest.raises(InvalidSettingsError, match="MAAS_SEALING__KEYS: ") as caught:
            build_sealer(settings_with(keys=keys))

        assert keys == "," or keys not in str(caught.value)

    def test_a_file_that_is_named_has_to_be_there(self, path: Path) -> None:
        with pytest.raises(InvalidSettingsError, match="maas keys add"):
            build_sealer(settings_with(keys_file=str(path)))

    def test_a_kms_that_cannot_be_imported_is_told(self, path: Path) -> None:
        with pytest.raises(InvalidSettingsError, match="MAAS_SEALING__KMS"):
            build_sealer(settings_with(keys_file=str(path), kms="no.such:function"))

    def test_a_kms_that_does_not_open_is_told_by_its_errors_name_alone(self) -> None:
        with pytest.raises(InvalidSettingsError, match=r"KMS: .*ValueError") as caught:
            build_sealer(settings_with(kms=f"{__name__}:{open_nothing.__name__}"))

        assert "region" not in str(caught.value)

    def test_one_that_is_there_and_cannot_be_read_is_not_to_be_made(self, path: Path) -> None:
        path.mkdir(parents=True)

        with pytest.raises(InvalidSettingsError, match="Is a directory") as caught:
            build_sealer(settings_with(keys_file=str(path)))

        assert "maas keys add" not in str(caught.value)

    def test_a_cipher_that_this_system_lacks_is_told_and_what_it_sealed_does_not_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = settings_with(algorithm="sm4-gcm")
        sealer = build_sealer(settings)
        sealed = sealer.seal(b"plain", PLACE)
        lacking = replace(CIPHERS["sm4-gcm"], wrapping_key=lack_sm3)
        monkeypatch.setattr(sealing_keys, "CIPHERS", {"sm4-gcm": lacking})
        monkeypatch.setattr(sealing, "CIPHERS_BY_NUMBER", {lacking.number: lacking})

        with pytest.raises(InvalidSettingsError, match="MAAS_SEALING__ALGORITHM"):
            build_sealer(settings)
        with pytest.raises(InvalidSettingsError, match="MAAS_SEALING__ALGORITHM"):
            read_ring(settings)
        with pytest.raises(SecretUnreadableError):
            sealer.open(sealed, PLACE)

    def test_one_place_for_keys_is_enough(self, path: Path) -> None:
        with pytest.raises(InvalidSettingsError, match="not both"):
            settings_with(keys="a", keys_file=str(path))

    def test_a_changed_secret_key_is_rotated_to(self) -> None:
        changed = load_settings(
            secret_key=f"{SECRET_KEY}-new",
            database={"url": "postgresql://unused"},
            redis={"url": "redis://unused"},
            auth={"previous_secret_key": SECRET_KEY},
        )

        assert build_sealer(changed).older_keys() == [DERIVED.id]
