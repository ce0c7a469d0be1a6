"""The evaluation of an ablation's runs: cells, comparisons, and answers to its claims.

Tables, CSV files, pages and docs/claims.md are written from an `Evaluation` alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gapbench.analysis.cells import Results, results_of
from gapbench.analysis.comparisons import Comparison, of_claim, to_baseline, unfinished
from gapbench.analysis.evidence import path_of, read_trials
from gapbench.analysis.records import alternatives, fits, text_of
from gapbench.analysis.sequential import Welch, confirmatory
from gapbench.spec.schema import AblationSpec, Claim

NOT_RUN, DIVERGED = "not run", "diverged"
NO_ROWS = "no such rows"


def claim_word(comparison: Comparison) -> str:
    """Return the answer of a comparison to the question of a claim."""
    if comparison.difference is None:
        return DIVERGED if comparison.run else NOT_RUN
    word = comparison.answer.word
    return f"{word} within {comparison.metric.margin:g}" if word == "equivalent" else word


@dataclass(frozen=True)
class Answer:
    """The answer of one ablation to one question on one task."""

    claim: Claim
    results: Results
    comparisons: tuple[Comparison, ...]

    @property
    def run(self) -> list[Comparison]:
        """The comparisons in which at least one seed of both rows has run or has diverged."""
        return [comparison for comparison in self.comparisons if comparison.run]

    @property
    def differences(self) -> list[tuple[Comparison, Welch]]:
        """The comparisons with a difference, each with its difference."""
        return [(c, c.difference) for c in self.comparisons if c.difference is not None]

    @property
    def verdict(self) -> str:
        """The answer in a few words: "supported", or the number of comparisons that support it."""
        if not self.comparisons and self.claim.equal != "train_flops":
            return NO_ROWS
        run = self.run
        if not run:
            waiting = bool(self.comparisons) or unfinished(self.results, self.claim)
            return NOT_RUN if waiting else "no rows with similar FLOPs"
        missing = len(self.comparisons) - len(run)
        columns = dict.fromkeys(comparison.column for comparison in run)
        by_column = {column: _words([c for c in run if c.column == column]) for column in columns}
        words = next(iter(by_column.values()))
        if len(set(by_column.values())) > 1:
            told = (f"{word} at {text_of(column)}" for column, word in by_column.items())
            words = "; ".join(told)
        seeds = {min(comparison.n) for comparison, _ in self.differences}
        words += " (ONE SEED)" if seeds == {1} else ""
        return f"{words}; {missing} {NOT_RUN}" if missing else words

    def supported_at(self, column: object) -> bool:
        """Say whether a column has all rows of the claim and supports every comparison.

        A claim about several epochs or distributions needs all of them.
        """
        own = self.at(column)
        sides = ((self.claim.better, [c.row for c in own]),
                 (self.claim.than, [c.reference for c in own]))  # fmt: skip
        named = all(
            any(fits(row.settings, field, one) for row in rows)
            for side, rows in sides
            for field, value in side.items()
            if field != self.results.column
            for one in alternatives(value)
        )
        return bool(own) and named and {claim_word(c) for c in own} == {"supported"}

    def at(self, column: object) -> list[Comparison]:
        """Return the comparisons in a column."""
        return [comparison for comparison in self.comparisons if comparison.column == column]


def _words(comparisons: Sequence[Comparison]) -> str:
    counts = Counter(map(claim_word, comparisons)).most_common()
    told = [f"{word} in {n}" for word, n in counts]
    told[0] += f" of {len(comparisons)} comparisons"
    return counts[0][0] if len(counts) == 1 else ", ".join(told)


@dataclass(frozen=True)
class TaskEvaluation:
    """The evaluation of an ablation on one task, with one answer per claim, in their order."""

    results: Results
    to_baseline: tuple[Comparison, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of an ablation, task by task.

    Attributes:
        frame: the evaluated frame, one row per trial.
    """

    spec: AblationSpec
    frame: pd.DataFrame
    tasks: tuple[TaskEvaluation, ...]

    @property
    def results(self) -> tuple[Results, ...]:
        """The results of each task."""
        return tuple(task.results for task in self.tasks)

    @property
    def answers(self) -> list[Answer]:
        """The answers, question by question, for every task that has rows of the question."""
        by_claim = zip(*(task.answers for task in self.tasks), strict=True)
        return [
            answer
            for answers in by_claim
            for answer in answers
            if answer.comparisons or not any(other.comparisons for other in answers)
        ]


def evaluate(frame: pd.DataFrame, spec: AblationSpec) -> Evaluation:
    """Evaluate an ablation from the frame from `runs_frame`.

    Raises:
        SectionError: if a field or the value is unknown, or a cell would mix configurations.
    """
    tasks = (
        TaskEvaluation(
            results,
            tuple(to_baseline(results, spec.report.baseline)),
            tuple(Answer(c, results, tuple(of_claim(results, c))) for c in spec.claims),
        )
        for results in results_of(frame, spec)
    )
    return Evaluation(spec, frame, tuple(tasks))


def published_evaluation(results: Path, scale: str, spec: AblationSpec) -> Evaluation | None:
    """Evaluate an ablation from its evidence alone; return None without evidence.

    Raises:
        UserError: if the evidence is damaged, or does not match the ablation.
    """
    path = path_of(results, scale, spec.name)
    return evaluate(read_trials(path, results).frame, spec) if path.is_file() else None


def confirming(answers: Sequence[Answer]) -> list[tuple[object, ...]]:
    """Return for each answer the columns in which it confirms; elsewhere it is exploratory.

    On each task and in each column, claims of the fixed sequence confirm in order, up to the first
    claim that is not supported or lacks a row. After a claim without an answer, no claim confirms.
    """
    found: list[list[object]] = [[] for _ in answers]
    known = {answer.claim.sequence for answer in answers}
    gap = next(number for number in itertools.count(1) if number not in known)
    numbered = [(answer.claim.sequence or gap, n) for n, answer in enumerate(answers)]
    ordered = [(answers[n], found[n]) for place, n in sorted(numbered) if place < gap]
    places = dict.fromkeys((a.results.task, c.column) for a, _ in ordered for c in a.run)
    for task, column in places:
        own = [one for one in ordered if one[0].results.task == task]
        supported = confirmatory(answer.supported_at(column) for answer, _ in own)
        for (answer, columns), sure in zip(own, supported, strict=True):
            if sure and any(c.run for c in answer.at(column)):
                columns.append(column)
    return [tuple(columns) for columns in found]


def published_evaluations(
    results: Path, scale: str, specs: Iterable[AblationSpec]
) -> list[Evaluation]:
    """Return the evaluations of ablations at a scale, from published trials alone."""
    found = (published_evaluation(results, scale, spec) for spec in specs)
    return [one for one in found if one is not None]
