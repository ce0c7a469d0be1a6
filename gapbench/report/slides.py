"""The tables of GaP's slides in their published form, with a measured value beside each number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gapbench.analysis.cells import WORDS, Cell, Results
from gapbench.analysis.evaluation import NOT_RUN
from gapbench.analysis.published import Published, published
from gapbench.analysis.records import NOTHING
from gapbench.methods.method import methods
from gapbench.report.grids import Grid, Text, decimals, interval

# all rows that translate are in one ablation
TABLES = {"translation": ("translation", "partitions", "strategy")}
HEADS = ("method", "distribution", "κ", "strategy", "epochs")
VALUES = ("published", "measured", "difference")
Key = tuple[str, ...]


def slides_grids(results: Results) -> Iterator[Grid]:
    """Yield the published tables that an ablation repeats, rows in published order, run or not.

    The source distinguishes RigL's own rows from rows that the slides' authors ran again.
    """
    for table in TABLES.get(results.ablation, (results.ablation,)):
        lines = [
            line
            for line in published()
            if (line.table, line.metric) == (table, results.metric.name)
            if line.source.startswith("GaP")
        ]
        if lines:
            yield _grid(results, table, lines)


def _grid(results: Results, table: str, lines: Sequence[Published]) -> Grid:
    rows: dict[Key, list[Published]] = {}
    for line in lines:
        rows.setdefault((*_key(line), line.source), []).append(line)
    # a column that is equal in all rows is left out
    told = [len(set(values) - {NOTHING}) > 1 for values in zip(*rows, strict=True)][:-1]
    shown = [index for index, differs in enumerate(told) if differs or index == 0]
    sparsities = sorted({line.sparsity for line in lines} - {0.0})
    known = {
        _row(cell.published): cell for _, _, cell in results.cells() if cell.published is not None
    }
    body = []
    for key, own in rows.items():
        cells = [Text(key[index]) for index in shown]
        for sparsity in sparsities:
            stated = next((one for one in own if one.sparsity in (sparsity, 0.0)), None)
            cells += _measured(stated, None if stated is None else known.get(_row(stated)), results)
        body.append((*cells, Text(key[-1])))
    heads = (*(HEADS[index] for index in shown), *VALUES * len(sparsities), "source")
    over = [(f"{100 * each:g} % sparse", len(VALUES)) for each in sparsities]
    return Grid(
        title=f"Published table: {table} ({lines[0].task}; measured on {results.task})",
        head=heads,
        body=tuple(body),
        keys=len(shown),
        groups=(("", len(shown)), *over, ("", 1)),
        notes=(
            "A difference is the measured mean minus the published value. It is given only if both "
            "values are from the same task.",
        ),
        on_screen=results.task == lines[0].task,
    )


def _row(line: Published) -> tuple[object, ...]:
    """Return the key of a line's row; different sources print one row with different values."""
    return (
        line.method,
        line.distribution,
        line.sparsity,
        line.partitions,
        line.strategy,
        line.multiplier,
    )


def _key(line: Published) -> Key:
    label = methods[line.method].label
    label += f" {line.multiplier}x" if line.multiplier not in (None, 1) else ""
    return (
        label,
        WORDS.get(line.distribution, line.distribution),
        NOTHING if line.partitions is None else str(line.partitions),
        line.strategy or NOTHING,
        line.epochs or NOTHING,
    )


def _measured(line: Published | None, cell: Cell | None, results: Results) -> list[Text]:
    """Return the published value, the measured one, and their difference."""
    if line is None:
        return [Text(NOTHING)] * 3
    stated = Text(line.value, float(line.value))
    if cell is None:
        return [stated, Text("no such row"), Text(NOTHING)]
    if cell.summary is None:
        return [stated, Text(NOT_RUN), Text(NOTHING)]
    found, places = cell.summary, decimals(results)
    measured = Text(f"{interval(found, places)} (n = {found.n})", found.mean)
    if line.task != results.task:
        return [stated, measured, Text(NOTHING)]
    gap = found.mean - float(line.value)
    return [stated, measured, Text(f"{gap:+.{places}f}", gap)]
