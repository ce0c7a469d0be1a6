"""Masks: densities, patterns, mask changes, cost and exploration.

This module exports the functions of shapes alone; the submodules work on tensors.
"""

from gapbench.sparsity.distributions import densities, erk, uniform

__all__ = ["densities", "erk", "uniform"]
