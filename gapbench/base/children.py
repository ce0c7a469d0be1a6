"""The environment of processes that this package starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# the least that torch's, oneDNN's and MKL's kernels know of a processor: all x86-64 ones have it
PORTABLE_KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}


def environment(hidden: Sequence[str] = (), kept: Sequence[str] = ()) -> dict[str, str]:
    """Return variables for processes that import nothing from the current folder.

    Whoever can write there could replace a library.

    Args:
        hidden: what the names of variables begin with that the processes do not get.
        kept: names of those among them that they get.
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
    """Give processes that a library starts in the block the variables of `environment`."""
    before, told = dict(os.environ), environment(hidden, kept)
    os.environ.clear()
    os.environ.update(told)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
