"""Stands in for the process of a model: answers like llama.cpp's server, without a model.

What it loads decides what it does: `broken` is not loaded. The last message decides on the answer:
`die` kills the process, `stream` goes on until the caller leaves, `environment` tells its own.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typing_extensions import override

from maas.inference.infrastructure.runtime_child import run

LEFT = "left"
"""The file beside the weights that is there once a caller has left in the middle of an answer."""


class _Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    key: str

    def do_GET(self) -> None:
        told = {"data": [{"meta": {"n_embd": 2}}]} if self.path == "/v1/models" else {}
        self._send(200, told)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {self.key}":
            self._send(401, {"error": {"message": "no", "type": "authentication_error"}})
            return
        wanted = body["messages"][-1]["content"]
        if wanted == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if body.get("stream"):
            self._stream(wanted)
            return
        told = sorted(os.environ) if wanted == "environment" else f"{os.getpid()}"
        message = {"role": "assistant", "content": told}
        self._send(200, answer({"finish_reason": "stop", "message": message}))

    def _stream(self, wanted: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        choice = {"finish_reason": None, "delta": {"content": f"{os.getpid()}"}}
        event = b"data: " + json.dumps(answer(choice)).encode() + b"\n\n"
        try:
            for _ in range(1 if wanted == "short" else 10_000):
                self.wfile.write(event)
                time.sleep(0.005)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            (self.folder / LEFT).touch()
        self.close_connection = True

    def _send(self, status: int, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def answer(choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "created": 1,
        "model": "stand-in",
        "choices": [{"index": 0, **choice}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


def load(wanted: dict[str, Any]) -> str:
    path = Path(wanted["path"])
    if path.read_bytes() == b"broken":
        sys.exit("the file is broken")
    _Model.folder, _Model.key = path.parent, wanted["key"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


if __name__ == "__main__":
    run(load)
