"""Which seeds an answer takes: all that there are, and those that the next look asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gapbench.analysis.collect import Scan
from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import Answer, Evaluation
from gapbench.analysis.looks import LOOKS
from gapbench.analysis.records import records_of, text_of
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
    """Return the trials, and those of further seeds that have completed.

    Args:
        ablation: the file.
        scale: a scale that it has.
        entries: its trials with the seeds that are asked for.
        found: what has run, or is published.
        settings: those that the trials were expanded with.
        only: the patterns that they match.
    """
    tasks = {entry.trial.task for entry in entries}
    ran = {run.trial.seed for run in found.runs.values() if run.trial.task in tasks}
    others = sorted(ran - {entry.trial.seed for entry in entries})
    if not others:
        return list(entries)
    overrides = read_set(settings) if settings else None
    more = expand(ablation, scale, overrides=overrides, only=only, seeds=others)
    return [*entries, *(entry for entry in more if entry.trial.key in found.runs)]


def next_look(evaluation: Evaluation, entries: Sequence[Entry], most: int) -> list[Entry]:
    """Return the trials that the next look at the claims that are still open asks for.

    Empty where every claim is answered, or has had its last look. Claims that have had fewer looks
    than others come first: what they ask for may answer them.

    Args:
        evaluation: of what has run.
        entries: the trials of all seeds up to the last look.
        most: seeds that a look may take.
    """
    looks = [_next(c) for answer in evaluation.answers for c in answer.comparisons]
    first = min((n for n in looks if 0 < n <= most), default=0)
    return _trials(evaluation, entries, lambda c: first if _next(c) == first else 0)


def all_looks(
    evaluation: Evaluation, entries: Sequence[Entry], most: int
) -> tuple[list[Entry], list[Entry]]:
    """Return the trials that open claims take if what was measured is true, and at most.

    Where nothing was measured yet, they are taken to need all looks.
    """
    last = max((n for n, _ in LOOKS if n <= most), default=0)

    def likely(comparison: Comparison) -> int:
        needed = last if comparison.needed is None else comparison.needed
        looks = (n for n, _ in LOOKS if n >= max(needed, _next(comparison)))
        return min(last, next(looks, last)) if _next(comparison) else 0

    return (
        _trials(evaluation, entries, likely),
        _trials(evaluation, entries, lambda c: last if _next(c) else 0),
    )


def _next(comparison: Comparison) -> int:
    """Return the seeds of the next look at a comparison; 0 where it is answered or at its last."""
    if comparison.answer.word != "not resolved":
        return 0
    return next((n for n, _ in LOOKS if n > comparison.answer.n), 0)


def _trials(
    evaluation: Evaluation, entries: Sequence[Entry], upto: Callable[[Comparison], int]
) -> list[Entry]:
    """Return the trials of the rows of comparisons, each up to so many seeds."""
    seeds: dict[Place, int] = {}
    for answer in evaluation.answers:
        for comparison in answer.comparisons:
            for side in _sides(answer, comparison):
                seeds[side] = max(seeds.get(side, 0), upto(comparison))
    rows, column = evaluation.spec.report.rows, evaluation.spec.report.columns
    found = []
    for entry, record in zip(entries, records_of(entries), strict=True):
        fields = tuple(text_of(record[name]) for name in rows)
        places = ((record["task"], fields, place) for place in (record[column], EVERYWHERE))
        if record["seed"] < max(seeds.get(place, 0) for place in places):
            found.append(entry)
    return found


def _sides(answer: Answer, comparison: Comparison) -> Iterator[Place]:
    """Yield task, fields and column of the two rows; a dense one stands in every column."""
    results = answer.results
    for row in (comparison.row, comparison.reference):
        everywhere = results.repeated and row.method == "dense"
        yield results.task, row.fields, EVERYWHERE if everywhere else comparison.column
