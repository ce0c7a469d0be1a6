"""The environment of processes that this package starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# the oldest instruction sets of torch's, oneDNN's and MKL's kernels: all x86-64 CPUs have them
PORTABLE_KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}


def environment(hidden: Sequence[str] = (), kept: Sequence[str] = ()) -> dict[str, str]:
    """Return environment variables for processes that import nothing from the current folder.

    Otherwise a file in the current folder could replace a library.

    Args:
        hidden: prefixes of variables that are withheld from the processes.
        kept: names of variables with such a prefix that the processes get.
    """
    told = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith(tuple(hidden))
    }
    told["PYTHONSAFEPATH"] = "1"
    try:
        version("gapbench")
    except PackageNotFoundError:  # a checkout that is not installed is found by its folder alone
        paths = [str(Path(__file__).parents[2]), told.get("PYTHONPATH")]
        told["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return told


@contextmanager
def started_safely(hidden: Sequence[str] = (), kept: Sequence[str] = ()) -> Iterator[None]:
    """Give the variables of `environment` to all processes that a library starts in the block."""
    before, told = dict(os.environ), environment(hidden, kept)
    os.environ.clear()
    os.environ.update(told)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
