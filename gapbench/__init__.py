"""Scheduled grow-and-prune sparse training, and the methods it is compared with.

The public names are loaded on first use, so that `import gapbench` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gapbench.engine.sparsifier import Sparsifier

__all__ = ["Sparsifier", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Sparsifier":
        return import_module("gapbench.engine.sparsifier").Sparsifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
