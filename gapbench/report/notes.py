"""The notes below the grids: the origin of numbers, and their limits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gapbench.analysis.cells import NEAR, Results, seed_correlation
from gapbench.analysis.comparisons import LIKE_FLOPS, Comparison
from gapbench.analysis.looks import LOOKS
from gapbench.analysis.sequential import POWER
from gapbench.spec.schema import Claim

COST = (
    "Machine-epochs count every worker; wall-clock epochs count parallel workers once. Prunable "
    "density is the density of the pruned layers; model density is the density of all parameters. "
    "Coverage is the share of prunable weights that were active at some time. IoU compares the "
    "masks of a layer before and after a change, averaged over changes and layers; two random "
    "masks of density d have an IoU of d / (2 - d). Seconds are wall-clock seconds, on a machine "
    "that may have run other work too."
)
COLUMNS = (
    "Difference: difference of means over all seeds ± half-width of the 95 % Welch t-interval; p: "
    "p-value of the Welch test, uncorrected"
)
LOOKS_WORDS = ", ".join(f"{n} seeds at level {level:g}" for n, level in LOOKS)
DETECTABLE = (
    f"detectable: the true difference that the last look finds with {100 * POWER:g} % power at "
    "the observed spread; seeds needed: the number of seeds that would resolve the measured "
    "difference"
)
ANSWERED = f"The answers come from planned looks: {LOOKS_WORDS} (docs/analysis.md)"
EXPLORATORY = "These comparisons are exploratory: each errs in at most one of twenty studies."
UNTESTED = "No comparison has two or more seeds of both rows: nothing can be tested."


def result_notes(results: Results, papers: Collection[str]) -> Iterator[str]:
    """Yield the notes on the values, and on the published values of `papers` beside them."""
    cells = [cell for _, _, cell in results.cells()]
    counts = sorted({cell.summary.n for cell in cells if cell.summary})
    if not counts:
        yield "No trial of this table has run."
    elif counts[-1] == 1:
        yield (
            "ONE SEED in each cell: this table has no intervals, and shows no difference between "
            "rows."
        )
    else:
        n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
        yield f"Mean ± half-width of the 95 % t-interval over seeds, {n}."
        if counts[0] == 1:
            yield "A cell without ± is ONE SEED."
    if any(0 < cell.n_run < cell.planned for cell in cells):
        yield "(2/3): two of three seeds have run."
    if any(cell.diverged for cell in cells):
        yield (
            "Diverged: the value is not finite, or below one and a half times chance. Means leave "
            "diverged seeds out."
        )
    yield "Training FLOPs are multiples of the task's dense recipe."
    yield "The value is measured on the finished model: no epoch is chosen by its test score."
    if results.value.startswith("heldout/"):
        yield (
            "heldout: labelled images outside the training, validation and test data. Heldout "
            "values answer the claims; the mean on the test split stands beside the heldout value."
        )
    if results.lacking and not results.value.startswith("heldout/"):
        yield (
            f"Trials without a value on heldout images: {results.lacking}. Heldout values answer "
            "the claims only if every trial has a heldout value."
        )
    if results.repeated:
        words = (
            "is repeated in each column"
            if len(results.columns) > 1
            else "stands beside sparse rows"
        )
        yield f"Dense training has no sparsity; its row {words}."
    if any(cell.reached is not None for cell in cells):
        yield (
            "A learned sparsity stands beside the value. The row is compared only if its sparsity "
            f"differs from the column's sparsity by at most {100 * NEAR:g} percentage point."
        )
    if results.commits > 1:
        yield (
            f"These trials ran with the code of {results.commits} commits. Each result names its "
            "commit; `gapbench reproduce KEY` says whether today's code gives the same bits."
        )
    if papers:
        yield from _published(results, papers)


def _published(results: Results, papers: Collection[str]) -> Iterator[str]:
    others = sorted(set(papers) - {results.task})
    if others:
        yield (
            f"Published values are for {' and '.join(others)}, not for {results.task}: compare "
            "only the order of rows within one source, never the values."
        )
    sources: dict[str, dict[str, None]] = {}
    for row, _, cell in results.cells():
        if cell.published:
            sources.setdefault(cell.published.source, {})[row.name] = None
    for source, names in sources.items():
        yield f"Published by {source}: {'; '.join(names)}."
    if len(sources) > 1:
        yield "The sources differ in epochs, recipe or dense training."


def comparison_notes(comparisons: Sequence[Comparison], explained: bool = False) -> tuple[str, ...]:
    """Return the notes on the test of differences.

    Args:
        comparisons: comparisons of one grid.
        explained: whether a grid above already explains the columns.
    """
    if not tested(comparisons):
        return (UNTESTED,)
    return (
        ("The columns are explained above.",)
        if explained
        else (f"{COLUMNS}; {DETECTABLE}. {ANSWERED}.",)
    )


def claim_notes(
    claim: Claim, comparisons: Sequence[Comparison], unit: str, explained: bool
) -> tuple[str, ...]:
    """Return the notes on the test of a claim, or the reason why there is no answer.

    Args:
        claim: the claim.
        comparisons: comparisons that answer the claim.
        unit: unit of the value.
        explained: whether a grid above already explains the columns.
    """
    if not comparisons:
        if claim.equal == "train_flops":
            like = f"within {100 * LIKE_FLOPS:g} % of each other"
            return (f"No two rows with completed trials have training FLOPs {like}.",)
        return ("No rows of this table answer this claim.",)
    if claim.margin is None or not tested(comparisons):
        return comparison_notes(comparisons, explained)
    columns = "" if explained else f"{COLUMNS}; {DETECTABLE}. {ANSWERED}. "
    return (
        f"{columns}As good: worse by less than the margin, {claim.margin:g} {points(unit)}; p "
        "tests a difference of exactly the margin. Contradicted: worse by more than the margin.",
    )


def points(unit: str) -> str:
    """Return the unit of a difference of two values with the unit `unit`."""
    return "points" if unit == "%" else unit


def tested(comparisons: Sequence[Comparison]) -> int:
    """Return the number of comparisons that could be tested."""
    return sum(c.tested for c in comparisons)


def spread_notes(results: Results) -> Iterator[str]:
    """Yield the notes on the spread over seeds, on which the test between rows relies."""
    found = seed_correlation(results)
    if found is not None:
        mean, pairs = found
        yield (
            "Welch's test assumes independent rows. Values of two rows with the same seed have a "
            f"mean correlation of {mean:+.2f} over {pairs} pairs of rows."
        )
    split = results.value.rpartition("/")[0]
    yield f"The loss and the value are measured on the same split: {split}."
