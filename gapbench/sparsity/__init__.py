"""Masks, their densities, how they move, what they cost and what they explore.

The functions of shapes alone are offered here; the modules beside them work on tensors.
"""

from gapbench.sparsity.distributions import densities, erk, uniform

__all__ = ["densities", "erk", "uniform"]
