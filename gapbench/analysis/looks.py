"""The planned looks at growing numbers of seeds (docs/analysis.md); light, for the command line."""

ALPHA = 0.05
# seeds at which a claim is looked at, and the part of ALPHA that each look spends
LOOKS = ((6, 0.005), (12, 0.015), (20, 0.03))
