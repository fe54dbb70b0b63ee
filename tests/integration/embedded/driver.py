"""`maas up` with stand-in children, run as a script so that it can be killed: driver.py JSON."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from maas.embedded.children import ChildCommand
from maas.embedded.platform import Prepared, UpOptions, run_platform

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def main() -> int:
    wanted = json.loads(sys.argv[1])
    data_dir = Path(wanted["data_dir"])
    port = wanted["port"]

    def prepare(environment: Mapping[str, str]) -> Prepared:
        data_dir.joinpath("environment.json").write_text(json.dumps(dict(environment)))
        time.sleep(wanted.get("prepare_seconds", 0))
        if wanted.get("prepare_fails"):
            message = "the migration failed"
            raise RuntimeError(message)
        return Prepared(one_time_password=wanted.get("one_time_password"), admin_username="admin")

    commands = [
        ChildCommand(
            name=role,
            title=role.capitalize(),
            arguments=[sys.executable, STAND_IN, role, str(port)],
            answers_http=role == "api" or bool(wanted.get("awaits")),
        )
        for role in wanted.get("roles", ["api", "worker"])
    ]
    options = UpOptions(
        data_dir=data_dir,
        host="127.0.0.1",
        port=port,
        start_postgres=wanted.get("start_postgres", True),
        start_valkey=wanted.get("start_valkey", True),
        worker_concurrency=1,
    )
    return run_platform(options, prepare=prepare, commands=commands)


if __name__ == "__main__":
    sys.exit(main())
