"""The figures, one module per figure."""

from __future__ import annotations

import pkgutil

from gapbench.errors import choose
from gapbench.spec.ablation import Ablation

# the names are known without importing the modules that draw
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def require_figures(ablation: Ablation) -> None:
    """Check the names of figures in the report section, before any trial has run.

    Raises:
        UserError: naming file, line and the valid figures.
    """
    if others := [name for name in ablation.spec.report.figures if name not in NAMES]:
        from gapbench.report.canvas import figures  # noqa: PLC0415 - matplotlib takes a second

        for name in others:
            if name not in figures:
                told = choose("figure", name, figures)
                raise ablation.document.problem(("report", "figures"), told)
