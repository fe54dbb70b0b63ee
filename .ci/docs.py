"""Write the generated documents, or check that they are what the code says.

python .ci/docs.py write
python .ci/docs.py check
"""

import difflib
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from maas.main import create_app  # noqa: E402  the path above comes first
from maas.shared.infrastructure.settings import load_settings  # noqa: E402  the path is set first
from maas.shared.interface.routes import walk_routes  # noqa: E402  the path is set first
from tests.architecture.inspection import action_of, list_actions, list_problems  # noqa: E402  the path is set first

DOCS = ROOT / "docs"

# Where an action without a route of its own comes from.
WHERE = {
    "shared": "any route, refused",
    "bootstrap.py": "the first start",
    "cli.py": "the command line",
    "backup": "`maas backup` and `maas restore`",
    "sealed.py": "the upkeep of kept secrets and their keys",
}

_NOTE = "<!-- Written by `make docs`; change the code instead. -->"

# Documents must not depend on the machine they are made on.
_SETTINGS = {
    "MAAS_ENVIRONMENT": "development",
    "MAAS_SECRET_KEY": "documents-only-0123456789-abcdefghijklmnopqrstuvwxyz",
    "MAAS_DATABASE__URL": "postgresql+asyncpg://nobody@localhost:1/none",
    "MAAS_REDIS__URL": "redis://localhost:1/0",
}


def openapi() -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAAS_")} | _SETTINGS
    return subprocess.run(
        [Path(sys.executable).with_name("maas"), "openapi"],
        env=environment,
        cwd="/",
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def errors() -> str:
    rows = [
        f"| {problem.status} | `{problem.code}` | {problem.title} | {problem.meaning} |"
        for problem in list_problems()
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            _NOTE,
            "",
            "Every refusal is `application/problem+json` (RFC 9457). Programs may rely on `code`:",
            "it never changes its meaning. `title` and `detail` are for people.",
            "`request_id` finds the call in the logs.",
            "",
            "Under `/v1` the same refusals have OpenAI's form, for its clients to read:",
            '`{"error": {"message", "type", "param", "code"}}`, with the status and `code` below,',
            "but where that API has a code of its own: `insufficient_quota`, `model_not_found`,",
            "`invalid_api_key`, `rate_limit_exceeded`, `context_length_exceeded`.",
            "",
            "| status | code | title | when |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def audit_actions() -> str:
    routes = defaultdict(set)
    for route in walk_routes(_app()):
        action = action_of(route)
        if action is not None:
            routes[action].add(f"`{route.method} {route.path}`")
    modules = {
        action: {place.path.removeprefix("maas/").split("/")[0] for place in places}
        for action, places in list_actions().items()
    }
    rows = []
    for action in sorted(routes.keys() | modules.keys()):
        where = sorted(routes[action]) or [
            WHERE.get(name, f"within `{name}`") for name in sorted(modules[action])
        ]
        rows.append(f"| `{action}` | {', '.join(where)} |")
    return "\n".join(
        [
            "# Audit actions",
            "",
            _NOTE,
            "",
            "What the trail records, under which name, and what leaves it. Each call leaves one",
            "event, whether it succeeds, fails or is denied. A released name stays.",
            "",
            "| action | left by |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def settings() -> str:
    """Write `.env.template` as a page: it has every setting, which a test sees to."""
    lines = [
        "# Settings",
        "",
        _NOTE,
        "",
        "Variables of the environment, or lines of `.env`; the values shown are the defaults,",
        "where none is marked as an example. Stronger are the options of the command line, weaker",
        "`config.yaml`. `maas config show` tells what is in force and where each value comes from,",
        "and `maas doctor` which names are misspelt.",
        "",
        "## config.yaml",
        "",
        "`config.yaml` is looked for in the folder that a process is started in, and nowhere else:",
        "in a container that is `/var/lib/maas`, with `make up` the clone. A section's settings",
        "stand under its name, all in small letters:",
        "",
        "```yaml",
        "log_level: WARNING           # MAAS_LOG_LEVEL",
        "rate_limits:",
        "  requests_per_minute: 1200  # MAAS_RATE_LIMITS__REQUESTS_PER_MINUTE",
        "```",
        "",
        "Each running process looks at it. `log_level` and `rate_limits`, but",
        "`rate_limits.enabled`, are in force within seconds where no variable and no line of",
        "`.env` says otherwise; all else that changed waits for a restart, and the log names it",
        "(`config_needs_restart`). A file that cannot be used, or is gone, changes nothing",
        "(`config_not_reloaded`), but a process that starts then refuses or does without it.",
    ]
    paragraphs = re.split(r"\n\s*\n", (ROOT / ".env.template").read_text(encoding="utf-8"))
    for paragraph in paragraphs[1:]:
        told = [line.removeprefix("#").strip() for line in paragraph.strip().splitlines()]
        heads = [line for line in told if line.startswith("# ")]
        names = [line for line in told if _SETTING.match(line)]
        text = [line for line in told if line not in names and line not in heads]
        lines += [f"\n## {head.strip('# -')}" for head in heads]
        lines += ["", *text] if text else []
        lines += ["", "```bash", *names, "```"] if names else []
    return "\n".join(lines) + "\n"


_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=")


def _app():
    values = {name.removeprefix("MAAS_").lower(): value for name, value in _SETTINGS.items()}
    return create_app(
        load_settings(
            environment=values["environment"],
            secret_key=values["secret_key"],
            database={"url": values["database__url"]},
            redis={"url": values["redis__url"]},
        )
    )


DOCUMENTS = {
    "openapi.json": openapi,
    "errors.md": errors,
    "audit-actions.md": audit_actions,
    "settings.md": settings,
}


def write() -> int:
    for name, make in DOCUMENTS.items():
        path = DOCS / name
        text = make()
        is_same = path.exists() and path.read_text(encoding="utf-8") == text
        path.write_text(text, encoding="utf-8")
        print(f"{'unchanged' if is_same else 'written  '}  docs/{name}")
    return 0


def check() -> int:
    stale = 0
    for name, make in DOCUMENTS.items():
        path = DOCS / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = list(
            difflib.unified_diff(
                old.splitlines(), make().splitlines(), f"docs/{name}", "the code", lineterm="", n=1
            )
        )
        if lines:
            stale = 1
            print(f"docs/{name} does not say what the code says; `make docs` writes it anew:")
            print("\n".join(lines[:40]))
    return stale


if __name__ == "__main__":
    sys.exit({"write": write, "check": check}[sys.argv[1]]())
