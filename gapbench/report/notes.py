"""What stands below the grids: how numbers were made, and what they do not say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gapbench.analysis.cells import NEAR, Results, seed_correlation
from gapbench.analysis.comparisons import LIKE_FLOPS, Comparison
from gapbench.analysis.looks import LOOKS
from gapbench.analysis.sequential import POWER
from gapbench.spec.schema import Claim

COST = (
    "Machine-epochs count every worker; wall-clock epochs count workers side by side. Prunable "
    "density is over the layers that are pruned, the whole model's over all parameters. Coverage "
    "is the share of prunable weights that were active at some time. IoU is that of a layer's mask "
    "before and after a change, mean over all; two random masks of density d have d / (2 - d). "
    "Seconds are those of a wall clock, on a machine that may have had other work too."
)
COLUMNS = (
    "Difference of means ± half-width of its 95 % t-interval by Welch, over all seeds; p: of that "
    "test, uncorrected"
)
LOOKS_WORDS = ", ".join(f"{n} seeds at {level:g}" for n, level in LOOKS)
DETECTABLE = (
    f"detectable: the true difference that the last look finds with {100 * POWER:g} % power with "
    "the spread seen; seeds needed: those that would resolve what was measured"
)
ANSWERED = f"The words are those of planned looks: {LOOKS_WORDS} (docs/analysis.md)"
EXPLORATORY = "These comparisons are exploratory: one of twenty errs."
UNTESTED = "No comparison has two seeds or more of both rows: nothing can be tested."


def result_notes(results: Results, papers: Collection[str]) -> Iterator[str]:
    """Yield what is to be known of the values, and of those of `papers` beside them."""
    cells = [cell for _, _, cell in results.cells()]
    counts = sorted({cell.summary.n for cell in cells if cell.summary})
    if not counts:
        yield "No trial of this table has run."
    elif counts[-1] == 1:
        yield (
            "ONE SEED in each cell: there is no interval, and no difference can be shown from this "
            "table."
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
            "Diverged: the value is not finite, or below one and a half times chance; such seeds "
            "are in no mean."
        )
    yield "Training FLOPs are multiples of the task's dense recipe."
    yield "The value is that of the finished model: no epoch is chosen by its test score."
    if results.value.startswith("heldout/"):
        yield (
            "heldout: labelled images that nothing was trained, validated or tested on; claims are "
            "answered by it, and the mean on the test split stands beside it."
        )
    if results.lacking and not results.value.startswith("heldout/"):
        yield (
            f"{results.lacking} of these trials have no value on heldout images, by which claims "
            "are answered where all have one."
        )
    if results.repeated:
        words = (
            "is repeated in each column"
            if len(results.columns) > 1
            else "stands beside sparse ones"
        )
        yield f"Dense training has no sparsity; its row {words}."
    if any(cell.reached is not None for cell in cells):
        yield (
            f"A sparsity that was learned stands with the value, and is compared within "
            f"{100 * NEAR:g} % of its column's."
        )
    if results.commits > 1:
        yield (
            f"These trials ran with the code of {results.commits} commits, named in their results; "
            "`gapbench reproduce` says whether today's gives the same bits."
        )
    if papers:
        yield from _published(results, papers)


def _published(results: Results, papers: Collection[str]) -> Iterator[str]:
    others = sorted(set(papers) - {results.task})
    if others:
        yield (
            f"Published values are for {' and '.join(others)}, not for {results.task}: compare "
            "their order within one source, never their size."
        )
    sources: dict[str, dict[str, None]] = {}
    for row, _, cell in results.cells():
        if cell.published:
            sources.setdefault(cell.published.source, {})[row.name] = None
    told = ". By ".join(f"{source}: {'; '.join(names)}" for source, names in sources.items())
    own = ". Sources differ in epochs, recipe or dense training" if len(sources) > 1 else ""
    yield f"Published by {told}{own}."


def comparison_notes(comparisons: Sequence[Comparison], explained: bool = False) -> tuple[str, ...]:
    """Return how differences were tested.

    Args:
        comparisons: those of one grid.
        explained: whether a grid above says already what its columns are.
    """
    if not tested(comparisons):
        return (UNTESTED,)
    return ("Columns as above.",) if explained else (f"{COLUMNS}; {DETECTABLE}. {ANSWERED}.",)


def claim_notes(
    claim: Claim, comparisons: Sequence[Comparison], unit: str, explained: bool
) -> tuple[str, ...]:
    """Return how a claim was tested, or why nothing answers it.

    Args:
        claim: the question.
        comparisons: those that answer it.
        unit: of the value.
        explained: whether a grid above says already what its columns are.
    """
    if not comparisons:
        if claim.equal == "train_flops":
            like = f"within {100 * LIKE_FLOPS:g} % of each other"
            return (f"No rows that have run spend alike: {like}.",)
        return ("No rows of this table answer it.",)
    if claim.margin is None or not tested(comparisons):
        return comparison_notes(comparisons, explained)
    columns = "" if explained else f"{COLUMNS}; {DETECTABLE}. {ANSWERED}. "
    return (
        f"{columns}As good: worse by less than {claim.margin:g} {points(unit)}, and p is of a "
        "difference of just that; contradicted: worse by more.",
    )


def points(unit: str) -> str:
    """Return what differences of values of a unit are counted in."""
    return "points" if unit == "%" else unit


def tested(comparisons: Sequence[Comparison]) -> int:
    """Return how many comparisons could be tested."""
    return sum(c.tested for c in comparisons)


def spread_notes(results: Results) -> Iterator[str]:
    """Yield what the spread of seeds says of the test that compares rows."""
    found = seed_correlation(results)
    if found is not None:
        mean, pairs = found
        yield (
            f"Values of rows with the same seed correlate by {mean:+.2f} over {pairs} pairs of "
            "rows: Welch's test takes them as independent."
        )
    yield f"The loss is on the split of the value, {results.value.rpartition('/')[0]}."
