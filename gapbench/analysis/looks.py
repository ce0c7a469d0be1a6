"""The planned looks at growing numbers of seeds (docs/analysis.md). Imports nothing heavy."""

ALPHA = 0.05
# numbers of seeds of the planned looks at a claim, and the part of ALPHA that each look spends
LOOKS = ((6, 0.005), (12, 0.015), (20, 0.03))
