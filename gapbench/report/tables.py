"""Grids of results, comparisons, claims, spread and cost, common to all output formats."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from gapbench.analysis.cells import COSTS, WORDS, Cell, Results, Row
from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import DIVERGED, NOT_RUN, Evaluation, TaskEvaluation, claim_word
from gapbench.analysis.looks import ALPHA
from gapbench.analysis.published import Published
from gapbench.analysis.records import NOTHING, alternatives, text_of
from gapbench.analysis.sequential import Welch
from gapbench.report.grids import Grid, Table, Text, decimals, interval, number
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
from gapbench.spec.schema import AblationSpec

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
    if compared := task.to_baseline:
        title = f"Difference to {settings_words(spec.report.baseline)} ({results.task})"
        notes = (*comparison_notes(compared), EXPLORATORY)
        grids.append(_comparison_grid(title, "verdict", results, compared, against_word, notes))
    explained = bool(tested(compared))
    for answer in task.answers:
        claim, compared = answer.claim, answer.comparisons
        title = f"{claim.asks} ({claim.source or OWN_QUESTION}; {results.task})"
        notes = claim_notes(claim, compared, results.metric.unit, explained)
        grids.append(_comparison_grid(title, "answer", results, compared, claim_word, notes))
        explained = explained or bool(tested(compared))
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
    head, groups = [*map(_head, results.fields)], [("", len(results.fields))]
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
            mean = cell.beside.mean if cell.beside else None
            line += [number(mean, f".{decimals(results)}f") for _ in beside]
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


def _printed(published: Published | None, paper: str) -> Text:
    if published is None or published.task != paper:
        return Text(NOTHING)
    return Text(published.value, float(published.value))


# -- comparisons ---------------------------------------------------------------------------------


def _comparison_grid(
    title: str,
    answered: str,
    results: Results,
    comparisons: Sequence[Comparison],
    word: Callable[[Comparison], str],
    notes: Sequence[str],
) -> Grid:
    """Return a line per comparison, with its answer in the column that `answered` heads."""
    return Grid(
        title=title,
        head=(
            "row", "against", _head(results.column), "n", "difference", "p", "detectable",
            "seeds needed", answered,
        ),
        body=tuple((*_compared(results, c), Text(word(c) if c.difference else NOTHING))
                   for c in comparisons),
        keys=3,
        notes=tuple(notes),
        on_screen=bool(comparisons),
        only_in_files=DETAILS,
        about=tuple(
            ((c.row.method, c.reference.method), _column_words(results.column, c.column))
            for c in comparisons
        ),
    )  # fmt: skip


def against_word(comparison: Comparison) -> str:
    """Return the answer of a comparison with a baseline, which is not a claim."""
    return WORDS_OF.get(comparison.answer.word, claim_word(comparison))


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
    p = comparison.p
    return (
        *names,
        Text(seeds_words(comparison), float(min(comparison.n))),
        Text(words, found.mean),
        Text("< 0.001", p) if p is not None and p < 0.001 else number(p, ".3f"),
        number(comparison.detectable, f".{places}f"),
        number(comparison.needed, "d"),
    )


def difference_words(found: Welch, places: int) -> str:
    """Return the difference as text, with the half-width of its 95 % interval, if any."""
    words = f"{found.mean:+.{places}f}"
    width = found.half_width(ALPHA)
    return words if math.isinf(width) else f"{words} ± {width:.{places}f}"


def seeds_words(comparison: Comparison) -> str:
    """Return the numbers of seeds of both rows, as one number if they are equal."""
    return str(comparison.n[0]) if len(set(comparison.n)) == 1 else "{}, {}".format(*comparison.n)


# -- spread ----------------------------------------------------------------------------------------


def _spread_grid(results: Results) -> Grid:
    """Return the grid of properties that a mean hides: spread, diverged seeds, and loss."""
    places = decimals(results)
    lines = []
    for row, column, cell in results.cells():
        if cell.summary is None:
            continue
        values = sorted(cell.values.values())
        numbers = (cell.summary.sd, statistics.median(values), values[0], values[-1])
        loss = Text(NOTHING) if cell.loss is None else Text(interval(cell.loss, 4), cell.loss.mean)
        counts = (Text(str(len(values))), Text(str(len(cell.diverged))))
        lines.append((row, column, (*counts, *(number(n, f".{places}f") for n in numbers), loss)))
    head = ("n", "diverged", "sd", "median", "lowest", "highest", "loss")
    title = f"Spread over seeds, and the loss ({results.task})"
    return _cells_grid(title, head, results, lines, tuple(spread_notes(results)))


def _cells_grid(
    title: str,
    head: Sequence[str],
    results: Results,
    lines: Sequence[tuple[Row, object, tuple[Text, ...]]],
    notes: tuple[str, ...],
) -> Grid:
    """Return a grid of rows in columns, for files alone; the column NOTHING is every column."""
    return Grid(
        title=title,
        head=(*map(_head, results.fields), _head(results.column), *head),
        body=tuple(
            (*map(_field, (*row.fields, text_of(column))), *cells) for row, column, cells in lines
        ),
        keys=len(results.fields) + 1,
        notes=notes,
        on_screen=False,
        about=tuple(
            ((row.method,), "" if column == NOTHING else _column_words(results.column, column))
            for row, column, _ in lines
        ),
    )


# -- cost ----------------------------------------------------------------------------------------


def _cost_grid(results: Results) -> Grid:
    used = [name for name in COSTS if any(name in cell.costs for _, _, cell in results.cells())]
    lines = []
    for row, column, cell in results.cells():
        everywhere = results.repeated and row.method == "dense"
        if cell.costs and not (everywhere and column != results.columns[0]):
            cells = (Text(str(cell.n_run)), *(_cost(cell, name) for name in used))
            lines.append((row, NOTHING if everywhere else column, cells))
    title = f"Cost and density, means over seeds ({results.task})"
    return _cells_grid(title, ("n", *(COSTS[name] for name in used)), results, lines, (COST,))


def _cost(cell: Cell, name: str) -> Text:
    form = ".0f" if name == "run/seconds" else "g" if name.endswith("epochs") else ".3f"
    return number(cell.costs.get(name), form)
