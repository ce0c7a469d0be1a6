"""Checks of a run's requirements on a machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One result: "fine", "missing" (a run will fail) or "optional" (only some runs fail)."""

    name: str
    state: Literal["fine", "missing", "optional"]
    detail: str


def checks(results: Path) -> Iterator[Check]:
    """Yield the results of all checks, cheap checks first."""
    yield Check("python", "fine", sys.version.split()[0])
    yield _writable(results)
    yield _import("torch", required=True)
    yield _torchvision()
    yield _import("sacred", required=True)
    yield _import("submitit", required=True)
    yield _fairseq()
    yield _data()
    yield _gpu()
    from gapbench.launch.queue import usable

    cluster, why = usable()
    yield Check(
        "slurm", "fine" if cluster else "optional", why if cluster else f"{why}: trials run here"
    )
    if cluster and shutil.which("scontrol") is None:
        yield Check("scontrol", "missing", "not in PATH: jobs need scontrol to requeue themselves")


def _writable(results: Path) -> Check:
    folder = results.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    state: Literal["fine", "missing"] = "fine" if os.access(folder, os.W_OK) else "missing"
    return Check("results", state, f"{results}, {free:.0f} GiB free below {folder}")


def _import(name: str, required: bool) -> Check:
    import importlib
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except Exception as error:  # an import can fail in any way, and this is the place to say how
        how = ": pip install 'gapbench[suite]'" if required else ""
        state: Literal["missing", "optional"] = "missing" if required else "optional"
        return Check(name, state, f"{type(error).__name__}: {error}{how}")
    return Check(name, "fine", str(getattr(module, "__version__", "imports")))


def _torchvision() -> Check:
    from gapbench.compat.torchvision_ops import load_torchvision

    load_torchvision()
    return _import("torchvision", required=True)


def _fairseq() -> Check:
    from gapbench.compat.fairseq_import import load_fairseq
    from gapbench.errors import UserError

    try:
        load_fairseq()
    except UserError as error:
        return Check("fairseq", "optional", str(error))
    return _import("fairseq", required=False)


def _data() -> Check:
    from gapbench.errors import UserError
    from gapbench.tasks.data.sources import FASHION_MNIST, is_here

    try:
        here = is_here(FASHION_MNIST)
    except UserError as error:
        return Check("fashion_mnist", "missing", str(error))
    if here:
        return Check("fashion_mnist", "fine", "data found and verified")
    return Check("fashion_mnist", "optional", "no data here yet: the first run downloads the data")


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", "optional", "no GPU: scales smoke and mini need none")
    return Check("gpu", "fine", torch.cuda.get_device_name())
