"""Imports torchvision beside a torch that its compiled extension does not fit.

torchvision's wheels are built against the CUDA build of torch. Beside a CPU build the extension
cannot be loaded, and the import stops because it describes two operators, `nms` and `qnms`, that
the extension would have declared. Declaring them makes models, datasets and transforms work; they
stay without kernels, so the detection operators are not to be had.

Where the extension loads, nothing is changed. The module can go once torchvision imports without
its extension.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def load_torchvision(module: str = "torchvision") -> ModuleType:
    """Import torchvision, or one of its modules such as "torchvision.models", and return it."""
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library()
    return importlib.import_module(module)


@functools.cache
def _library() -> Any:
    """Declare the operators; they exist for as long as the returned library does."""
    # typed as Any: torch leaves the class without annotations
    library: Any = importlib.import_module("torch.library").Library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(operator)
    return library
