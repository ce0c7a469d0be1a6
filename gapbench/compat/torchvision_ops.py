"""Imports torchvision beside a torch that its compiled extension does not fit.

torchvision's wheels are built against the CUDA build of torch. With a CPU build of torch, the
extension cannot be loaded. The import then fails, because it refers to two operators, `nms` and
`qnms`, which the extension would declare. A declaration of these operators makes models, datasets
and transforms work. The operators have no kernels, so detection does not work.

If the extension loads, nothing is changed. This module can be removed once torchvision imports
without its extension.
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
    """Declare the operators; they exist as long as the returned library exists."""
    # typed as Any: torch leaves the class without annotations
    library: Any = importlib.import_module("torch.library").Library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(operator)
    return library
