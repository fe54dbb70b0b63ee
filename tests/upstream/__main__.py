"""The upstream as a process: `python -m tests.upstream --port 0`; its first line says where."""

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from tests.upstream.certificates import VARIANTS, Authority
from tests.upstream.desk import Desk
from tests.upstream.server import Upstream, serving


async def serve(arguments: argparse.Namespace) -> None:
    upstream = Upstream(Desk(keys=frozenset(arguments.key)))
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(upstream, port=arguments.port))
        told: dict[str, object] = {"port": port}
        if arguments.tls_folder is not None:
            authority = Authority.make()
            told["tls"] = {
                variant: await stack.enter_async_context(
                    serving(upstream, tls=authority.context(variant))
                )
                for variant in VARIANTS
            }
            told["ca_file"] = str(authority.write(arguments.tls_folder / "company-ca.pem"))
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", action="append", default=[], help="none: anybody may call")
    parser.add_argument("--tls-folder", type=Path, help="listen with each kind of certificate too")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
