"""The seeds of answers: all completed seeds, and the seeds that the next look needs."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from gapbench.analysis.cells import Row
from gapbench.analysis.collect import Scan
from gapbench.analysis.comparisons import cells_of
from gapbench.analysis.evaluation import Answer, Evaluation
from gapbench.analysis.looks import LOOKS
from gapbench.analysis.records import records_of, text_of
from gapbench.errors import NothingFound
from gapbench.spec.ablation import Ablation
from gapbench.spec.grid import Entry, expand
from gapbench.spec.loading import read_set

EVERYWHERE = "every column"
Place = tuple[str, tuple[str, ...], object]  # task, fields and column of a row


def with_others(
    ablation: Ablation,
    scale: str,
    entries: Sequence[Entry],
    found: Scan,
    *,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
) -> list[Entry]:
    """Return the trials, and completed trials of further seeds.

    Seeds that no look takes, such as the seeds for choosing a recipe, are left out. `settings` and
    `only` are what `--set` and `--only` name.
    """
    tasks = {entry.trial.task for entry in entries}
    there = {entry.trial.key for entry in entries}
    ran = {run.trial.seed for run in found.runs.values() if run.trial.task in tasks}
    seeds = sorted(seed for seed in ran if seed < LOOKS[-1][0])
    if not seeds:
        return list(entries)
    overrides = read_set(settings) if settings else None
    try:
        more = expand(ablation, scale, overrides=overrides, only=only, seeds=seeds)
    except NothingFound:  # `only` names a seed
        return list(entries)
    known = (entry for entry in more if entry.trial.key in found.runs)
    return [*entries, *(entry for entry in known if entry.trial.key not in there)]


# the rows of an open claim, the seeds of its next look, and those of the look that resolves it if
# the measured difference is the true difference
Open = tuple[tuple[Place, ...], int, int]


def next_look(
    evaluation: Evaluation, entries: Sequence[Entry], most: int, failed: Container[str] = ()
) -> list[Entry]:
    """Return the trials that the next look at the open claims needs.

    The list is empty if every claim is answered or has had its last look. Claims with fewer looks
    than others come first, since their next look may answer them.

    Args:
        evaluation: evaluation of the runs.
        entries: the trials of all seeds up to the last look.
        most: maximum number of seeds of a look.
        failed: keys of trials that have failed; looks that need such a trial are left out.
    """
    lost: dict[Place, int] = {}
    for entry, places in _places(evaluation, entries):
        if entry.trial.key in failed:
            lost |= {place: min(entry.trial.seed, lost.get(place, most)) for place in places}
    opened = [
        (sides, look)
        for sides, look, _ in _opened(evaluation)
        if look <= most and all(lost.get(side, most) >= look for side in sides)
    ]
    first = min((look for _, look in opened), default=0)
    return _trials(evaluation, entries, [one for one in opened if one[1] == first])


def all_looks(
    evaluation: Evaluation, entries: Sequence[Entry], most: int
) -> tuple[list[Entry], list[Entry]]:
    """Return the trials that open claims need if the measured differences are true, and at most.

    Claims without a measurement are assumed to need all looks.
    """
    last = max((n for n, _ in LOOKS if n <= most), default=0)
    opened = list(_opened(evaluation))
    return (
        _trials(evaluation, entries, [(sides, min(last, likely)) for sides, _, likely in opened]),
        _trials(evaluation, entries, [(sides, last) for sides, _, _ in opened]),
    )


def _opened(evaluation: Evaluation) -> Iterator[Open]:
    """Yield comparisons that are not resolved, and claims whose rows have not run yet."""
    first, last = LOOKS[0][0], LOOKS[-1][0]
    for answer in evaluation.answers:
        for comparison in answer.comparisons:
            look = next((n for n, _ in LOOKS if n > comparison.answer.n), 0)
            if comparison.answer.word == "not resolved" and look:
                rows = (comparison.row, comparison.reference)
                sides = (_place(answer, row, comparison.column) for row in rows)
                yield tuple(sides), look, comparison.needed or last
        if not answer.comparisons and answer.claim.equal == "train_flops":
            # which rows spend alike is known once they have run
            waiting = [
                _place(answer, row, column)
                for row, column, cell in cells_of(answer.results, answer.claim)
                if cell.n_run < first
            ]
            if waiting:
                yield tuple(waiting), first, last


def _trials(
    evaluation: Evaluation,
    entries: Sequence[Entry],
    wanted: Iterable[tuple[tuple[Place, ...], int]],
) -> list[Entry]:
    """Return the trials of rows, each row up to its number of seeds."""
    seeds: dict[Place, int] = {}
    for sides, count in wanted:
        seeds |= {side: max(count, seeds.get(side, 0)) for side in sides}
    return [
        entry
        for entry, places in _places(evaluation, entries)
        if entry.trial.seed < max(seeds.get(place, 0) for place in places)
    ]


def _places(
    evaluation: Evaluation, entries: Sequence[Entry]
) -> Iterator[tuple[Entry, tuple[Place, Place]]]:
    """Yield every trial with its possible positions in a table."""
    rows, column = evaluation.spec.report.rows, evaluation.spec.report.columns
    for entry, record in zip(entries, records_of(entries), strict=True):
        fields = tuple(text_of(record[name]) for name in rows)
        task = record["task"]
        yield entry, ((task, fields, record[column]), (task, fields, EVERYWHERE))


def _place(answer: Answer, row: Row, column: object) -> Place:
    """Return task, fields and column of a row; a dense row stands in every column."""
    everywhere = answer.results.repeated and row.method == "dense"
    return answer.results.task, row.fields, EVERYWHERE if everywhere else column
