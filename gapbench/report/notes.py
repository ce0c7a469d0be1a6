"""What stands below the grids: how numbers were made, and what they do not say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gapbench.analysis import stats
from gapbench.analysis.cells import NEAR, Results
from gapbench.analysis.comparisons import LIKE_FLOPS, Comparison
from gapbench.spec.schema import Claim

COST = (
    "Machine-epochs count every worker; wall-clock epochs count workers side by side. Prunable "
    "density is over the layers that are pruned, the whole model's over all parameters. Coverage "
    "is the share of prunable weights that were active at some time. Seconds are those of a wall "
    "clock, on a machine that may have had other work too."
)
COLUMNS = (
    "Mean difference ± half-width of its 95 % t-interval, not corrected; effect size: mean over "
    "standard deviation of the differences"
)
DETECTABLE = (
    f"detectable: the smallest true difference that would be found at this n with "
    f"{100 * stats.POWER:g} % power, at the level of the correction's first step and with the "
    "spread seen"
)
UNTESTED = "No comparison has two seeds or more that differ: nothing can be tested."


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
        yield "Diverged: the value is not finite; such seeds are in no mean."
    yield "Training FLOPs are multiples of the task's dense recipe."
    yield "The value is that of the finished model: no epoch is chosen by its test score."
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
    if explained:
        return (f"{_corrected(comparisons)}; columns as above.",)
    return (f"{COLUMNS}; p: paired t-test, {_corrected(comparisons)}; {DETECTABLE}.",)


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
    columns = "" if explained else f"{COLUMNS}; {DETECTABLE}. "
    return (
        f"{columns}As good: worse by less than {claim.margin:g} {points(unit)}. p: paired t-test "
        "of a difference of just that, where the effect size is about none, "
        f"{_corrected(comparisons)}; contradicted: worse by more.",
    )


def points(unit: str) -> str:
    """Return what differences of values of a unit are counted in."""
    return "points" if unit == "%" else unit


def tested(comparisons: Sequence[Comparison]) -> int:
    """Return how many comparisons could be tested."""
    return sum(c.p_holm is not None for c in comparisons)


def _corrected(comparisons: Sequence[Comparison]) -> str:
    count, known = len(comparisons), tested(comparisons)
    words = f"Holm-corrected for {count} comparison{'s' if count > 1 else ''}"
    return words + (f", {known} of which can be tested" if known < count else "")
