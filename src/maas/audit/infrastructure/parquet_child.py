"""`python -m maas.audit.infrastructure.parquet_child`: rows in, a Parquet file out.

A line of JSON with the header, then lines with rows; each but the first is answered with a frame:
its length in four bytes, then what there is of the file. The end of the input ends the file.
"""

import json
import sys

from maas.audit.infrastructure.parquet import ParquetText, use_one_core


def main() -> None:
    use_one_core()
    source, target = sys.stdin.buffer, sys.stdout.buffer
    text = ParquetText(json.loads(source.readline()))
    for line in source:
        part = text.add(json.loads(line))
        target.write(len(part).to_bytes(4, "big") + part)
        target.flush()
    target.write(text.finish())


if __name__ == "__main__":
    main()
