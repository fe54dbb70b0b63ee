"""Small stand-ins for the platform's own processes, run as a script: stand_in.py ROLE [PORT]."""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from maas.shared.infrastructure.core_dumps import forbid_core_dumps


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def api(port: int) -> None:
    """Answer readiness checks, and leave at SIGTERM as a server does."""
    server = HTTPServer(("127.0.0.1", port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.02)


def worker() -> None:
    """Fork a pool of two, as Celery does, and tell their ids."""
    pool = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
        pool.append(pid)
    say(json.dumps({"pool": pool}))
    while True:
        time.sleep(60)


def deaf() -> None:
    """Ignore every polite request to leave."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("deaf")
    while True:
        time.sleep(60)


def sealed() -> None:
    """Hold secrets as the platform does, unreadable to its own account; fork, and stay."""
    forbid_core_dumps()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pid = os.fork()
    if pid:
        say(json.dumps({"pool": [os.getpid(), pid]}))
    while True:
        time.sleep(60)


def crash() -> None:
    say("the reason it crashed")
    sys.exit(7)


def main() -> None:
    role, *rest = sys.argv[1:]
    if role == "api":
        api(int(rest[0]))
    else:
        {"worker": worker, "deaf": deaf, "sealed": sealed, "crash": crash}[role]()


if __name__ == "__main__":
    main()
