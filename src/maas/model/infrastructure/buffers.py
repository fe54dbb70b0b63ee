"""Memory for the parts of files, given back to the system as soon as nobody looks at it."""

import mmap


def new_buffer(size: int) -> memoryview:
    """Make room for `size` bytes; pages that are never written to cost nothing.

    Use it again for part after part: the first writing to a page costs more than any copy. Blocks
    of many megabytes from `malloc` would stay with the process: its threads keep them for later.
    """
    return memoryview(mmap.mmap(-1, max(1, size)))[:size]
