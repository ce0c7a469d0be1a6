"""Print the table of README from the published trials.

    python scripts/readme_table.py

`tests/docs/test_readme.py` holds README to it.
"""

from __future__ import annotations

from pathlib import Path

from gapbench.analysis.evaluation import published_evaluation
from gapbench.report.grids import interval
from gapbench.spec.ablation import read

SPARSITY = 0.95
HEADS = ("method", "epochs", "accuracy, %", "n", "training FLOPs", "inference FLOPs")


def table(root: Path) -> str:
    """Return the rows of ablations/main.yaml at mini that have at least six seeds, best first."""
    spec = read(root / "ablations" / "main.yaml").spec
    found = published_evaluation(root / "results", "mini", spec)
    if found is None:
        return ""
    (results,) = found.results
    at = results.columns.index(SPARSITY)
    rows = [(row, row.cells[at]) for row in results.rows]
    rows = [(row, cell) for row, cell in rows if cell.summary is not None and cell.summary.n >= 6]
    rows.sort(key=lambda pair: -pair[1].summary.mean)  # type: ignore[union-attr]
    lines = [f"| {' | '.join(HEADS)} |", "|:---" + "|---:" * (len(HEADS) - 1) + "|"]
    for row, cell in rows:
        costs = [
            f"{cell.costs[f'cost/{name}_flops_ratio']:.2f}×" for name in ("train", "inference")
        ]
        epochs = f"{row.settings['epochs'] / row.settings['recipe.epochs']:g}x"
        words = (row.name, epochs, interval(cell.summary, 2), str(cell.summary.n), *costs)
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(__file__).parent.parent))
