"""Scheduled grow-and-prune sparse training, and the baseline methods.

The public names are loaded on first use, so that `import gapbench` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gapbench.engine.sparsifier import Sparsifier
    from gapbench.study import Study, run

__version__ = "0.1.0"

_PLACES = {
    "Sparsifier": "gapbench.engine.sparsifier",
    "Study": "gapbench.study",
    "run": "gapbench.study",
}
__all__ = ["Sparsifier", "Study", "__version__", "run"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        try:
            return getattr(import_module(_PLACES[name]), name)
        except ModuleNotFoundError as error:
            suite = "pip install 'gapbench[suite]'"
            raise ImportError(f"gapbench.{name} needs {error.name}: {suite}") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
