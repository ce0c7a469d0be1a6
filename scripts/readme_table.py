"""Print what README says of results, from the published trials: one sentence, and the table.

    python scripts/readme_table.py

`tests/docs/test_readme.py` holds README to it.
"""

from __future__ import annotations

from pathlib import Path

from gapbench.analysis.cells import Results
from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import claim_word, published_evaluation
from gapbench.analysis.published import published
from gapbench.report.grids import interval
from gapbench.report.tables import difference_words
from gapbench.spec.ablation import read

SPARSITY, PUBLISHED = 0.95, 0.9  # of the table, and of the slides' main table
RIGL = (5, 12)  # times RigL's own epochs, as in the claim
HEADS = ("method", "epochs", "accuracy, %", "n", "training FLOPs", "inference FLOPs")


def block(root: Path) -> str:
    """Return the sentence and the table."""
    spec = read(root / "ablations" / "main.yaml").spec
    found = published_evaluation(root / "results", "mini", spec)
    if found is None:
        return ""
    (results,) = found.results
    compared = [one for one in found.answers[0].comparisons if one.column == SPARSITY]
    return f"{sentence(results, compared)}\n\n{table(results)}"


def sentence(results: Results, compared: list[Comparison]) -> str:
    """Return how C-GaP compares with RigL, measured and published."""
    at = results.columns.index(SPARSITY)
    flops = {row.name: row.cells[at].costs.get("cost/train_flops_ratio") for row in results.rows}
    measured = [
        f"{difference_words(one.difference, 2)} points against {one.reference.name.split(',')[0]} "
        f"({claim_word(one)}, {flops[one.row.name] / flops[one.reference.name]:.1f}× its FLOPs)"
        for one in compared
        if one.difference is not None
    ]
    papers = [_published("c_gap") - _published("rigl", times) for times in RIGL]
    stated = " and ".join(f"{paper:+.1f}" for paper in papers)
    return (
        f"**C-GaP at scale mini: {', '.join(measured)}.** The authors' slides claim {stated} on "
        f"ImageNet at {100 * PUBLISHED:g} %."
    )


def _published(method: str, times: int | None = None) -> float:
    asked = ("main", method, "uniform", PUBLISHED, times)
    (line,) = [
        line
        for line in published()
        if (line.table, line.method, line.distribution, line.sparsity, line.multiplier) == asked
    ]
    return float(line.value)


def table(results: Results) -> str:
    """Return the rows of ablations/main.yaml at mini that have at least six seeds, best first."""
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
    print(block(Path(__file__).parent.parent))
