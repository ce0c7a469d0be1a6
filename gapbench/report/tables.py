"""Grids of results, comparisons, claims, spread and cost, common to all output formats."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from gapbench.analysis.cells import COSTS, WORDS, Cell, Results
from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import DIVERGED, NOT_RUN, Evaluation, TaskEvaluation, claim_word
from gapbench.analysis.looks import ALPHA
from gapbench.analysis.published import Published
from gapbench.analysis.records import NOTHING, alternatives, text_of
from gapbench.analysis.sequential import Welch
from gapbench.analysis.stats import Summary
from gapbench.report.grids import About, Grid, Table, Text, decimals, interval
from gapbench.report.notes import (
    COST,
    EXPLORATORY,
    claim_notes,
    comparison_notes,
    result_notes,
    spread_notes,
    tested,
)
from gapbench.report.slides import slides_grids
from gapbench.spec.schema import AblationSpec, Claim

HEADS = {
    "label": "method",
    "partitions": "κ",
    "distribution": "distribution",
    "epochs": "epochs given",
}
DETAILS = ("against", "n", "p", "detectable", "seeds needed")
OWN_QUESTION = "gapbench's own question"  # of a claim without a source
WORDS_OF = {"supported": "better", "contradicted": "worse"}


def tables_of(evaluation: Evaluation) -> tuple[Table, ...]:
    """Return the tables of an ablation, one per task."""
    return tuple(table_of(task, evaluation.spec) for task in evaluation.tasks)


def table_of(task: TaskEvaluation, spec: AblationSpec) -> Table:
    """Return the grids of a task: results and published values, comparisons, claims, cost."""
    results = task.results
    grids = [_result_grid(results)]
    if task.to_baseline:
        grids.append(_comparison_grid(results, task.to_baseline, spec))
    explained = bool(tested(task.to_baseline))
    for answer in task.answers:
        grids.append(_claim_grid(results, answer.claim, answer.comparisons, explained))
        explained = explained or bool(tested(answer.comparisons))
    grids += [*slides_grids(results), _spread_grid(results), _cost_grid(results)]
    return Table(results.ablation, results.question, results.task, tuple(grids))


def settings_words(fields: Mapping[str, object]) -> str:
    """Return the fields of a claim or a baseline as text for people."""
    return ", ".join(
        f"{name} {' or '.join(map(text_of, alternatives(value)))}" for name, value in fields.items()
    )


# -- results -------------------------------------------------------------------------------------


def _result_grid(results: Results) -> Grid:
    papers = {cell.published.task for _, _, cell in results.cells() if cell.published}
    head, groups = _row_heads(results), [("", len(results.fields))]
    beside = ["test"] if any(cell.beside for _, _, cell in results.cells()) else []
    for column in results.columns:
        head += [value_head(results), *beside, "training FLOPs"]
        head += [f"published: {paper}" for paper in sorted(papers)]
        groups.append((_column_words(results.column, column), 2 + len(beside) + len(papers)))
    body = []
    for row in results.rows:
        line = [_field(field) for field in row.fields]
        for cell in row.cells:
            line.append(_measured(cell, results))
            line += [_mean(cell.beside, decimals(results)) for _ in beside]
            line.append(_cost(cell, "cost/train_flops_ratio"))
            line += [_printed(cell.published, paper) for paper in sorted(papers)]
        body.append(tuple(line))
    return Grid(
        title=f"{results.question} ({results.task})",
        head=tuple(head),
        body=tuple(body),
        keys=len(results.fields),
        groups=tuple(groups),
        notes=tuple(result_notes(results, papers)),
        only_in_files=tuple(beside),
        about=tuple(((row.method,), "") for row in results.rows),
    )


def _row_heads(results: Results) -> list[str]:
    return [_head(field) for field in results.fields]


def _head(field: str) -> str:
    return HEADS.get(field, field.replace("_", " "))


def value_head(results: Results) -> str:
    """Return the name of the value, with its unit."""
    split, _, name = results.value.rpartition("/")
    unit = results.metric.unit
    unit = "" if unit.lower() == name else unit
    return f"{split} {name}{f' ({unit})' if unit else ''}"


def _column_words(field: str, value: object) -> str:
    if field == "sparsity" and isinstance(value, (int, float)):
        return f"{100 * value:g} % sparse"
    return f"{_head(field)} {text_of(value)}"


def _field(words: str) -> Text:
    try:
        return Text(words, float(words))
    except ValueError:
        return Text(WORDS.get(words, words))


def _measured(cell: Cell, results: Results) -> Text:
    """Return mean ± half-width, with a share such as (3/6) if only part of the seeds have run."""
    if not cell.planned:
        return Text(NOTHING)
    run = cell.n_run
    partly = f" ({run}/{cell.planned})" if run < cell.planned else ""
    failed = f", {cell.states['failed']} failed" if "failed" in cell.states else ""
    if run == 0:
        return Text(NOT_RUN + failed)
    diverged = f", {len(cell.diverged)} diverged" if cell.diverged else ""
    if cell.summary is None:
        return Text(f"{DIVERGED}{partly}{failed}")
    words = interval(cell.summary, decimals(results))
    if cell.reached is not None:
        words += f" at {100 * cell.reached:.1f} %"
    return Text(words + partly + diverged + failed, cell.summary.mean, *cell.trials[:1])


def _mean(summary: Summary | None, places: int) -> Text:
    return Text(NOTHING) if summary is None else Text(f"{summary.mean:.{places}f}", summary.mean)


def _printed(published: Published | None, paper: str) -> Text:
    if published is None or published.task != paper:
        return Text(NOTHING)
    return Text(published.value, float(published.value))


# -- comparisons ---------------------------------------------------------------------------------


def _comparison_grid(
    results: Results, comparisons: Sequence[Comparison], spec: AblationSpec
) -> Grid:
    words = settings_words(spec.report.baseline)
    lines = [(*_compared(results, c), _verdict(c, against_word(c))) for c in comparisons]
    return Grid(
        title=f"Difference to {words} ({results.task})",
        head=(*_comparison_heads(results), "verdict"),
        body=tuple(lines),
        keys=3,
        notes=(*comparison_notes(comparisons), EXPLORATORY),
        only_in_files=DETAILS,
        about=_about(results, comparisons),
    )


def against_word(comparison: Comparison) -> str:
    """Return the answer of a comparison with a baseline, which is not a claim."""
    return WORDS_OF.get(comparison.answer.word, claim_word(comparison))


def _claim_grid(
    results: Results, claim: Claim, comparisons: Sequence[Comparison], explained: bool
) -> Grid:
    """Return the comparisons that answer a claim's question.

    Args:
        results: results of one task.
        claim: the claim.
        comparisons: comparisons that answer the claim.
        explained: whether a grid above already explains the columns.
    """
    lines = [(*_compared(results, c), _verdict(c, claim_word(c))) for c in comparisons]
    return Grid(
        title=f"{claim.asks} ({claim.source or OWN_QUESTION}; {results.task})",
        head=(*_comparison_heads(results), "answer"),
        body=tuple(lines),
        keys=3,
        notes=claim_notes(claim, comparisons, results.metric.unit, explained),
        on_screen=bool(lines),
        only_in_files=DETAILS,
        about=_about(results, comparisons),
    )


def _about(results: Results, comparisons: Sequence[Comparison]) -> tuple[About, ...]:
    return tuple(
        ((one.row.method, one.reference.method), _column_words(results.column, one.column))
        for one in comparisons
    )


def _comparison_heads(results: Results) -> tuple[str, ...]:
    return (
        "row", "against", _head(results.column), "n", "difference", "p", "detectable",
        "seeds needed",
    )  # fmt: skip


def _compared(results: Results, comparison: Comparison) -> tuple[Text, ...]:
    places, found = decimals(results), comparison.difference
    names = (
        Text(comparison.row.name),
        Text(comparison.reference.name),
        _field(text_of(comparison.column)),
    )
    diverged = f"{comparison.diverged} {DIVERGED}" if comparison.diverged else ""
    if found is None:
        return (*names, Text("0", 0.0), Text(diverged or NOT_RUN), *[Text(NOTHING)] * 3)
    words = ", ".join(filter(None, (difference_words(found, places), diverged)))
    return (
        *names,
        Text(seeds_words(comparison), float(min(comparison.n))),
        Text(words, found.mean),
        _p(comparison.p),
        _number(comparison.detectable, f".{places}f"),
        _number(comparison.needed, "d"),
    )


def difference_words(found: Welch, places: int) -> str:
    """Return the difference as text, with the half-width of its 95 % interval, if any."""
    words = f"{found.mean:+.{places}f}"
    width = found.half_width(ALPHA)
    return words if math.isinf(width) else f"{words} ± {width:.{places}f}"


def seeds_words(comparison: Comparison) -> str:
    """Return the numbers of seeds of both rows, as one number if they are equal."""
    return str(comparison.n[0]) if len(set(comparison.n)) == 1 else "{}, {}".format(*comparison.n)


def _verdict(comparison: Comparison, word: str) -> Text:
    return Text(NOTHING if comparison.difference is None else word)


def _number(value: float | None, form: str) -> Text:
    return Text(NOTHING) if value is None else Text(f"{value:{form}}", value)


def _p(value: float | None) -> Text:
    if value is None:
        return Text(NOTHING)
    return Text("< 0.001" if value < 0.001 else f"{value:.3f}", value)


# -- spread ----------------------------------------------------------------------------------------


def _spread_grid(results: Results) -> Grid:
    """Return the grid of properties that a mean hides: spread, diverged seeds, and loss."""
    body, about = [], []
    for row, value, cell in results.cells():
        if cell.summary is None:
            continue
        about.append(((row.method,), _column_words(results.column, value)))
        values, places = sorted(cell.values.values()), decimals(results)
        numbers = (cell.summary.sd, statistics.median(values), values[0], values[-1])
        loss = Text(NOTHING) if cell.loss is None else Text(interval(cell.loss, 4), cell.loss.mean)
        names = (*(_field(field) for field in row.fields), _field(text_of(value)))
        counts = (Text(str(len(values))), Text(str(len(cell.diverged))))
        body.append((*names, *counts, *(_number(n, f".{places}f") for n in numbers), loss))
    head = ("n", "diverged", "sd", "median", "lowest", "highest", "loss")
    return Grid(
        title=f"Spread over seeds, and the loss ({results.task})",
        head=(*_row_heads(results), _head(results.column), *head),
        body=tuple(body),
        keys=len(results.fields) + 1,
        notes=tuple(spread_notes(results)),
        on_screen=False,
        about=tuple(about),
    )


# -- cost ----------------------------------------------------------------------------------------


def _cost_grid(results: Results) -> Grid:
    used = [name for name in COSTS if any(name in cell.costs for _, _, cell in results.cells())]
    body, about = [], []
    for row, value, cell in results.cells():
        everywhere = results.repeated and row.method == "dense"
        if not cell.costs or (everywhere and value != results.columns[0]):
            continue
        column_value = NOTHING if everywhere else text_of(value)
        column = "" if everywhere else _column_words(results.column, value)
        about.append(((row.method,), column))
        names = (*(_field(field) for field in row.fields), _field(column_value))
        counted = Text(str(cell.n_run))
        body.append((*names, counted, *(_cost(cell, name) for name in used)))
    return Grid(
        title=f"Cost and density, means over seeds ({results.task})",
        head=(*_row_heads(results), _head(results.column), "n", *(COSTS[name] for name in used)),
        body=tuple(body),
        keys=len(results.fields) + 1,
        notes=(COST,),
        on_screen=False,
        about=tuple(about),
    )


def _cost(cell: Cell, name: str) -> Text:
    value = cell.costs.get(name)
    if value is None:
        return Text(NOTHING)
    if name == "run/seconds":
        return Text(f"{value:.0f}", value)
    return Text(f"{value:g}" if name.endswith("epochs") else f"{value:.3f}", value)
