"""Whoever changes state says what the trail knows of it: routes, tasks, commands, SQL by hand.

A route is audited by its decorator (`test_routes`), and a unit of work refuses to commit a change
without a scope. What is left is listed here, and a writer that is not fails the build.
"""

import ast
import re
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.main import get_command

from maas.cli import app as command_line
from maas.shared.infrastructure.settings import load_settings
from maas.worker import create_worker
from tests.architecture.inspection import ROOT, SOURCE, list_actions

NOTHING: Final = "changes nothing anybody did"
AS_CLIENT: Final = "asks the API, whose routes leave their events"

TASKS: Final = {
    "audit.flush": "moves events into the log, which is the trail itself",
    "audit.prune": "forgets ids of events that are in the log",
    "audit.export_head": "copies a checkpoint to a file",
    "audit.erase_personal": "audit.personal_erased",
    "audit.watch": "audit.alert",
    "audit.deliver": "audit.delivery_failed",
    "audit.retain": "audit.partition_dropped",
    "quota.expire": "books what a call that has ended is known to have used",
    "quota.tell": "quota.reached",
    "model.collect": "model.purged",
    "provider.check": "provider.unhealthy",
    "storage.book": "books what files take and give back; their own events tell of them",
    "mail.send": "does what an event of the request that asked for it tells",
    "sign_in.purge": "forgets what has expired",
    "idempotency.purge": "forgets what has expired",
    "usage.prepare": "makes empty tables",
    "capture.prune": "forgets what has expired",
    "replay.prune": "forgets what has expired",
    "sealing.rewrap": "seals the same secrets under the key that an event names",
    "sealing.check": "secret.unreadable",
}
"""What each Celery task leaves in the trail: an action, or why none."""

COMMANDS: Final = {
    "up": "admin.created",
    "migrate": "admin.created",
    "admin create": "admin.created",
    "backup": "system.backed_up",
    "restore": "system.restored",
    "resume-collection": "system.collection_resumed",
    "login": AS_CLIENT,
    "logout": AS_CLIENT,
    "model alias": AS_CLIENT,
    "model ls": NOTHING,
    "model pull": AS_CLIENT,
    "model push": AS_CLIENT,
    "keys add": "sealing_key.added",
    "keys ls": NOTHING,
    "keys retire": "sealing_key.retired",
    "keys rotate": "sealing_key.rotated",
    "serve": NOTHING,
    "runtime": NOTHING,
    "worker": NOTHING,
    "beat": NOTHING,
    "config show": NOTHING,
    "doctor": NOTHING,
    "openapi": NOTHING,
    "audit verify": NOTHING,
    "audit prove": NOTHING,
    "audit key": NOTHING,
    "audit resume": NOTHING,
    "audit retention": "audit.partition_dropped",
}

SQL_BY_HAND: Final = {
    "audit/infrastructure/checkpoints.py": "the trail itself",
    "audit/infrastructure/dedup.py": "the trail itself",
    "audit/infrastructure/deliveries.py": "audit.delivery_failed",
    "audit/infrastructure/erasure.py": "audit.personal_erased",
    "audit/infrastructure/ledger.py": "the trail itself",
    "audit/infrastructure/named_people.py": "audit.personal_erased",
    "audit/infrastructure/outbox.py": "the trail itself",
    "audit/infrastructure/watch.py": "audit.alert",
    "audit/infrastructure/watch_alerts.py": "audit.alert",
    "audit/infrastructure/watch_memory.py": "audit.alert",
    "audit/infrastructure/retention.py": "audit.partition_dropped",
    "audit/infrastructure/terms.py": "the trail itself",
    "inference/infrastructure/captures.py": "beside the event of the call they are of",
    "inference/infrastructure/captures_upkeep.py": "the task above; audit.personal_erased",
    "inference/infrastructure/replays.py": "beside the call's event; the task above",
    "backup/database.py": "system.restored",
    "backup/snapshot.py": "system.backed_up",
    "embedded/provision.py": "roles and databases of a server of our own, before there is a trail",
    "model/infrastructure/bookings.py": "in the unit of work; and the task above",
    "model/infrastructure/collection.py": "model.purged",
    "model/infrastructure/provider_watch.py": "provider.unhealthy",
    "model/infrastructure/repositories.py": "in the unit of work",
    "model/infrastructure/upload_journal.py": "how far uploads came; their files leave events",
    "shared/infrastructure/idempotency.py": "in the unit of work of its request; the purge",
    "shared/infrastructure/roles.py": "roles of a server, before there is a trail",
    "shared/infrastructure/sealing_upkeep.py": "the tasks and commands above",
    "shared/infrastructure/unit_of_work.py": "the guard, which names the words it looks for",
    "user/infrastructure/admin_repositories.py": "in the unit of work",
    "user/infrastructure/joining.py": "in the unit of work",
    "user/infrastructure/key_marks.py": "in the unit of work",
    "user/infrastructure/mail_queue.py": "the tasks above",
    "user/infrastructure/quota_alerts.py": "quota.reached",
    "user/infrastructure/quota_budgets.py": "books what files take and give back",
    "user/infrastructure/quota_batches.py": "books what calls use; the calls leave their own",
    "user/infrastructure/usage_upkeep.py": "makes empty tables",
    "user/infrastructure/throttle.py": "counters; the sign-in they are of leaves auth.login",
}
"""Modules with SQL of their own that changes something, and who answers for it."""

_CHANGING: Final = re.compile(
    r"\b(?:INSERT\s+INTO|UPDATE\s+\w+(?:\s+(?:AS\s+)?\w+)?\s+SET|DELETE\s+FROM|TRUNCATE|MERGE\s+INTO"
    r"|(?:CREATE|ALTER|DROP)\s+(?:ROLE|TABLE|DATABASE|INDEX|FUNCTION|TRIGGER|SCHEMA)"
    r"|GRANT\s+\w+.*\bTO\b|REVOKE\s+\w+.*\bFROM\b)",
    re.DOTALL,
)
_CREATED: Final = re.compile(
    r"CREATE(?:\s+OR\s+REPLACE)?\s+FUNCTION\s+(\w+)[^$]*(\$\w*\$)(.*?)\2", re.DOTALL
)


def changing_functions(folder: Path = ROOT / "alembic" / "versions") -> set[str]:
    """Name the functions in the database that change something: to call one is to write."""
    texts = (path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    return {
        name for text in texts for name, _, body in _CREATED.findall(text) if _CHANGING.search(body)
    }


def writers(folder: Path, functions: set[str]) -> set[str]:
    """Name modules whose strings are SQL that changes something, or that copy rows."""
    calls = re.compile(rf"\b(?:{'|'.join(sorted(functions)) or 'nothing'})\(")
    found = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)) if _CHANGING.search(text) or calls.search(text):
                    found.add(str(path.relative_to(folder)))
                case ast.Attribute(attr="copy_records_to_table" | "copy_to_table"):
                    found.add(str(path.relative_to(folder)))
                case _:
                    continue
    return found


def commands(app: typer.Typer) -> set[str]:
    def walk(command: object, name: str) -> set[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return {name}
        return {
            each for key, value in inner.items() for each in walk(value, f"{name} {key}".strip())
        }

    return walk(get_command(app), "")


def tasks() -> set[str]:
    settings = load_settings(
        environment="test",
        secret_key="only-to-read-the-tasks-0123456789-abcdefghijklmnopq",
        database={"url": "postgresql+asyncpg://nobody@localhost:1/none"},
        redis={"url": "redis://localhost:1/0"},
    )
    worker = create_worker(settings)
    worker.loader.import_default_modules()
    return {name for name in worker.tasks if not name.startswith("celery.")}


def test_every_task_says_what_it_leaves_in_the_trail() -> None:
    assert tasks() == set(TASKS)


def test_every_command_says_what_it_leaves_in_the_trail() -> None:
    assert commands(command_line) == set(COMMANDS)


def test_whoever_writes_sql_by_hand_says_who_answers_for_it() -> None:
    assert writers(SOURCE, changing_functions()) == set(SQL_BY_HAND)


def test_what_they_name_are_actions() -> None:
    named = {*TASKS.values(), *COMMANDS.values(), *SQL_BY_HAND.values()}

    actions = {text for text in named if re.fullmatch(r"\w+\.\w+", text)}

    assert actions <= set(list_actions())
    assert actions


class TestPlanted:
    @pytest.mark.parametrize(
        "source",
        [
            'await connection.execute("INSERT INTO accounts VALUES (1)")',
            'SQL = f"""UPDATE accounts\\n   SET status = $1 {where}"""',
            'x("WITH gone AS (DELETE FROM accounts RETURNING id) SELECT 1")',
            'fetchval("SELECT planted_change($1)")',
            "connection.copy_records_to_table(name, records=rows)",
        ],
    )
    def test_sql_that_changes_something_is_found(self, tmp_path: Path, source: str) -> None:
        tmp_path.joinpath("planted.py").write_text(source)

        assert writers(tmp_path, {"planted_change"}) == {"planted.py"}

    def test_a_function_that_changes_something_is_found(self, tmp_path: Path) -> None:
        tmp_path.joinpath("one.py").write_text(
            "CREATE FUNCTION writes() RETURNS void AS $$ BEGIN DELETE FROM x; END $$;"
            "CREATE OR REPLACE FUNCTION reads() RETURNS int AS $f$ SELECT 1 $f$"
        )

        assert changing_functions(tmp_path) == {"writes"}

    def test_sql_that_reads_is_not(self, tmp_path: Path) -> None:
        tmp_path.joinpath("reading.py").write_text('x("SELECT 1 FROM accounts FOR UPDATE")')

        assert writers(tmp_path, {"planted_change"}) == set()

    def test_a_command_is_found(self) -> None:
        app, inner = typer.Typer(), typer.Typer()
        app.command("one")(lambda: None)
        inner.command("two")(lambda: None)
        inner.command("three")(lambda: None)
        app.add_typer(inner, name="group")

        assert commands(app) == {"one", "group two", "group three"}
