"""Few shapes: a CPU's matrix library compiles a kernel for every shape it meets, and keeps it.

With ragged batches shapes hardly ever repeat: RL updates of a 4M-parameter model then kept 100 MB each, up to 1 GB, and
lost time to compiling (LOG.md). So sizes are rounded up and the rest is padding.
"""

from __future__ import annotations


def rounded_up(count: int, step: int = 32) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step
