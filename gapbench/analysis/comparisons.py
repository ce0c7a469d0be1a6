"""Comparisons of rows: differences over independent seeds, and the answers of planned looks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gapbench.analysis.cells import Cell, Results, Row
from gapbench.analysis.records import NOTHING, alternatives, fits, text_of
from gapbench.analysis.sequential import Answer, Welch, answer, difference_of, needed
from gapbench.plan.phases import UNSTRUCTURED
from gapbench.spec.schema import Claim
from gapbench.tasks.task import Metric

# training FLOPs this near to each other count as equal: a budget is met in whole epochs
LIKE_FLOPS = 0.05


@dataclass(frozen=True)
class Comparison:
    """A comparison of a row with a reference row in the same column.

    Attributes:
        difference: row minus reference over all their seeds; None if one of them has no seed.
        n: numbers of finite seeds of the row and of the reference.
        diverged: number of diverged seeds of both rows, which no difference includes.
        answer: answer of the planned looks to the claim "the row is better" or, with `margin`, "the
            row is as good".
        margin: amount by which an equally good row may be worse, or None.
        metric: metric of the values; its own margin is that of equivalence.
    """

    row: Row
    reference: Row
    column: object
    difference: Welch | None
    n: tuple[int, int]
    diverged: int
    answer: Answer
    margin: float | None
    metric: Metric

    @property
    def run(self) -> bool:
        """Whether the comparison has a result: a difference, or diverged seeds."""
        return self.difference is not None or self.diverged > 0

    @property
    def tested(self) -> bool:
        """Whether both rows have enough seeds for an interval."""
        return self.difference is not None and min(self.n) > 1

    @property
    def p(self) -> float | None:
        """The uncorrected p-value of Welch's two-sided test over all seeds, at 0 or the margin."""
        if not self.tested or self.difference is None:
            return None
        return self.difference.p(self.bound)

    @property
    def detectable(self) -> float | None:
        """The true difference that the last look finds with 80 % power at its measured spread."""
        found = self.answer.difference
        return None if found is None or self.margin else found.detectable(self.answer.level)

    @property
    def needed(self) -> int | None:
        """The number of seeds that would resolve an unresolved comparison, or None."""
        if not self.tested or self.difference is None or self.answer.word != "not resolved":
            return None
        if self.diverged or self.difference.error == 0:  # no number of seeds would
            return None
        sign = 1 if self.metric.higher_is_better else -1
        found = replace(self.difference, mean=sign * self.difference.mean)
        margin = self.margin or self.metric.margin
        return needed(found, min(self.n), margin, self.margin is not None)

    @property
    def bound(self) -> float:
        """The difference from which the row is as good, or 0."""
        worse = -(self.margin or 0.0)
        return worse if self.metric.higher_is_better else -worse


def to_baseline(results: Results, baseline: Mapping[str, Any]) -> list[Comparison]:
    """Return every row compared with the baseline's row.

    If several rows match `baseline`, a row is compared with the matching row that shares its other
    fields: with {strategy: cyclic}, the random ERK row is compared with the cyclic ERK row. A row
    without exactly one such match is not compared.
    """
    if not baseline:
        return []
    pairs = []
    for row in results.rows:
        partners = _partners(results, row, baseline)
        if len(partners) == 1 and partners[0] is not row:
            pairs.append((row, partners[0]))
    return _compared(results, pairs)


def of_claim(results: Results, claim: Claim) -> list[Comparison]:
    """Return the comparisons of a claim: each row of `better` with its row of `than`.

    Two rows are compared if they share the fields that the claim does not name. Rows of different
    methods may differ in epochs (see the claim's `equal`), and in an option that only one method
    has. Dense rows need not share any field with sparse rows.
    """
    better, than = {**claim.at, **claim.better}, {**claim.at, **claim.than}
    pairs = [
        (row, other)
        for row in results.rows
        for other in results.rows
        if _fits(results, row, better) and _fits(results, other, than)
        if row is not other
        if _comparable(results, row, other, {**better, **than})
        if claim.equal != "epochs" or row.settings["epochs"] == other.settings["epochs"]
    ]
    at, like = claim.at.get(results.column), claim.equal == "train_flops"
    return _compared(results, pairs, at, like, claim.margin)


def unfinished(results: Results, claim: Claim) -> bool:
    """Say whether rows of a claim have not run yet."""
    return any(not cell.n_run for _, _, cell in cells_of(results, claim))


def cells_of(results: Results, claim: Claim) -> Iterator[tuple[Row, object, Cell]]:
    """Yield row, column and cell of all rows of a claim, compared or not."""
    sides = {**claim.at, **claim.better}, {**claim.at, **claim.than}
    at = claim.at.get(results.column)
    for row, column, cell in results.cells():
        if at in (None, column) and any(_fits(results, row, side) for side in sides):
            yield row, column, cell


def _comparable(results: Results, row: Row, other: Row, named: Collection[str]) -> bool:
    fields = [field for field in results.fields if field not in named and field != "label"]
    if row.method == other.method:
        return _share(row, other, fields)
    if "method" not in named:
        return False
    own = [
        field
        for field in fields
        if field != "epochs"
        and NOTHING not in (text_of(one.settings[field]) for one in (row, other))
    ]
    return other.method == "dense" or _share(row, other, own)


def _partners(results: Results, row: Row, wanted: Mapping[str, Any]) -> list[Row]:
    """Return the rows that match `wanted` and share with `row` the fields that `wanted` lacks.

    A single matching row is taken whatever its other fields. A label only names the method: labels
    may differ if `wanted` names the method. If no row has the same label, the method must agree.
    """
    fitting = [other for other in results.rows if _fits(results, other, wanted)]
    if len(fitting) == 1:
        return fitting
    fields = [field for field in results.fields if field not in wanted and field != "label"]
    if "method" in wanted:
        return [other for other in fitting if _share(row, other, fields)]
    like = [other for other in fitting if _share(row, other, [*fields, "label"])]
    return like or [other for other in fitting if _share(row, other, [*fields, "method"])]


def _share(row: Row, other: Row, fields: Iterable[str]) -> bool:
    return all(text_of(row.settings[field]) == text_of(other.settings[field]) for field in fields)


def _fits(results: Results, row: Row, wanted: Mapping[str, Any]) -> bool:
    """Say whether a row has the wanted settings; the column field is not a setting of a row.

    If no pattern is named, the unstructured pattern is meant.
    """
    if row.settings.get("pattern", UNSTRUCTURED) not in alternatives(
        wanted.get("pattern", UNSTRUCTURED)
    ):
        return False
    return all(
        fits(row.settings, name, value)
        for name, value in wanted.items()
        if name not in (results.column, "pattern")
    )


def _compared(
    results: Results,
    pairs: Iterable[tuple[Row, Row]],
    at: object = None,
    like: bool = False,
    margin: float | None = None,
) -> list[Comparison]:
    """Compare pairs of rows in every column, or in the column of the value `at`.

    With `like`, only cells of like training FLOPs are compared, which are known once the cells have
    run. An equally good row may be worse by `margin`; without one, the row must be better.
    """
    found = [
        (row, other, column, mine, theirs)
        for row, other in pairs
        for column, mine, theirs in zip(results.columns, row.cells, other.cells, strict=True)
        if mine.planned and theirs.planned and at in (None, column)
        if all(cell.stands_for(results.column, column) for cell in (mine, theirs))
        if not like or _alike(mine, theirs)
    ]
    metric = results.metric
    return [
        Comparison(
            row=row,
            reference=other,
            column=column,
            difference=difference_of(mine.values, theirs.values),
            n=(len(mine.values), len(theirs.values)),
            diverged=len(mine.diverged) + len(theirs.diverged),
            answer=answer(
                mine.by_seed,
                theirs.by_seed,
                margin=metric.margin if margin is None else margin,
                as_good=margin is not None,
                higher_is_better=metric.higher_is_better,
            ),
            margin=margin,
            metric=metric,
        )
        for row, other, column, mine, theirs in found
    ]


def _alike(mine: Cell, theirs: Cell) -> bool:
    """Say whether two cells have like training FLOPs; a cell that has not run has none."""
    costs = [cell.costs.get("cost/train_flops_ratio", 0.0) for cell in (mine, theirs)]
    return 0 < max(costs) <= min(costs) * (1 + LIKE_FLOPS)
