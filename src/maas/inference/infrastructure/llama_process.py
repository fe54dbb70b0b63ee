"""The process of one model: llama.cpp's own server, for the runtime host alone.

Run as `python -m`. It reads what to load from its standard input, tells on its standard output
where it listens, and ends as soon as its input does: a host that is killed leaves nothing behind.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any, Final

import xllamacpp  # type: ignore[import-untyped]  # it tells no types

_PR_SET_PDEATHSIG: Final = 1

HEADER_BYTES: Final = 256 * 1024

WARNINGS: Final = 2
"""How much llama.cpp tells: of what is asked and answered, nothing."""


def main() -> None:
    wanted = json.loads(sys.stdin.buffer.readline())
    _follow(wanted["parent"])
    # llama.cpp writes to where it likes; the host reads one line, and it is ours.
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server = _load(wanted)
    told.write(json.dumps({"address": server.listening_address}) + "\n")
    told.close()
    # Nothing comes any more but the end.
    sys.stdin.buffer.read()
    # Ending in order would wait for answers that nobody is there to read.
    os._exit(0)


def _load(wanted: dict[str, Any]) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = wanted["path"]
    params.model_alias = {wanted["name"]}
    params.api_keys = [wanted["key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = WARNINGS
    params.ui = False
    params.endpoint_slots = False
    params.warmup = False
    # What one caller sent must not make another's answer come sooner.
    params.cache_prompt = False
    params.cache_idle_slots = False
    params.cache_ram_mib = 0
    params.n_parallel = wanted["answers_at_once"]
    params.n_ctx = wanted["context_length"] * wanted["answers_at_once"]
    params.cpuparams.n_threads = wanted["threads"]
    params.cpuparams_batch.n_threads = wanted["threads"]
    if wanted["mode"] == "embed":
        params.embedding = True
        # A text is read in one go, so this is the longest one.
        params.n_batch = wanted["context_length"]
        params.n_ubatch = wanted["context_length"]
        if not _says_how_to_pool(wanted["path"]):
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


def _says_how_to_pool(path: str) -> bool:
    """Tell whether a model was made to embed: others have one vector for each token."""
    # What a model is stands before its vocabulary, which is what makes a header long.
    with open(path, "rb") as file:  # noqa: PTH123  starts in milliseconds, so it imports little
        return b".pooling_type" in file.read(HEADER_BYTES)


def _follow(parent: int) -> None:
    """Have the kernel end this process with its host, also while a model is being loaded."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main()
