"""The process of one GGUF file: llama.cpp's own server, for the runtime host alone.

Run as `python -m`.
"""

from typing import Any, Final

import xllamacpp  # type: ignore[import-untyped]  # it tells no types

from maas.inference.infrastructure.runtime_child import run

HEADER_BYTES: Final = 256 * 1024

WARNINGS: Final = 2
"""How much llama.cpp tells: of what is asked and answered, nothing."""

_servers: list[Any] = []


def load(wanted: dict[str, Any]) -> str:
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
    server = xllamacpp.Server(params)
    # It ends with the last reference to it.
    _servers.append(server)
    address: str = server.listening_address
    return address


def _says_how_to_pool(path: str) -> bool:
    """Tell whether a model was made to embed: others have one vector for each token."""
    # What a model is stands before its vocabulary, which is what makes a header long.
    with open(path, "rb") as file:  # noqa: PTH123  starts in milliseconds, so it imports little
        return b".pooling_type" in file.read(HEADER_BYTES)


if __name__ == "__main__":
    run(load)
