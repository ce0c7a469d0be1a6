"""What results say to the questions of ablations: a few words each, with intervals, generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gapbench.base.documents import is_plain, require_real
from gapbench.errors import UserError
from gapbench.report.cells import Results
from gapbench.report.comparisons import Comparison, of_claim, unfinished
from gapbench.report.notes import points
from gapbench.report.records import NOTHING, text_of
from gapbench.report.render import markdown
from gapbench.report.stats import Difference
from gapbench.report.tables import (
    DIVERGED,
    NOT_RUN,
    Grid,
    Table,
    Text,
    claim_word,
    decimals,
    interval,
)
from gapbench.report.trials import results_at
from gapbench.spec.schema import AblationSpec, Claim

ANSWERS = "answers.md"
NO_ROWS = "no such rows"
MOST_DIFFERENCES = 4  # more than these are summed up by the most and the least favourable
BOUNDS = (
    "Differences are means over seeds with the half-widths of their 95 % t-intervals, which are "
    "not corrected for the number of comparisons, nor for being the largest or smallest of many. "
    "Supported and contradicted need a paired t-test below 0.05 after Holm's correction for all "
    "comparisons of a question on one task, run or not; at equal training FLOPs for those that are "
    "known to spend alike. Where a row has to be as good within a margin, the test is of a "
    "difference of just that: contradicted is a row that is worse by more. A question about any "
    "row is supported by one, and contradicted by all. Not resolved is no proof of equality: the "
    "difference may be anything inside its interval. Detectable is the smallest true difference "
    "that the test finds with 80 % power at this n, at the level of the correction's first step "
    "and with the spread seen."
)


@dataclass(frozen=True)
class Answer:
    """What one ablation says to one question on one task."""

    claim: Claim
    results: Results
    comparisons: tuple[Comparison, ...]

    @property
    def run(self) -> list[Comparison]:
        """The comparisons for which at least one seed of both rows has run, or has diverged."""
        return [comparison for comparison in self.comparisons if comparison.run]

    @property
    def verdict(self) -> str:
        """The answer in a few words: "supported", or in how many comparisons it is."""
        if not self.comparisons and self.claim.equal != "train_flops":
            return NO_ROWS
        run = self.run
        if not run:
            waiting = bool(self.comparisons) or unfinished(self.results, self.claim)
            return NOT_RUN if waiting else "no rows of like FLOPs"
        missing = len(self.comparisons) - len(run)
        words = self._in_short(Counter(map(claim_word, run)), bool(missing))
        counts = {difference.summary.n for _, difference in self._differences}
        words += " (ONE SEED)" if counts == {1} else ""
        return f"{words}; {missing} {NOT_RUN}" if missing else words

    def _in_short(self, counts: Counter[str], partly: bool) -> str:
        """Return how often each word was found; any row answers a question about any row."""
        total, good = counts.total(), counts["supported"]
        any_row = not self.claim.better
        if len(counts) == 1 and not (any_row and partly and counts["contradicted"]):
            return next(iter(counts))
        if any_row and good:
            return f"supported by {good} of {total}"
        words = ", ".join(f"{word} in {n} of {total}" for word, n in counts.most_common())
        return f"not resolved ({words})" if any_row else words

    @property
    def differences(self) -> str:
        """The differences in words; of many, only the most and the least favourable."""
        if len(self.run) <= MOST_DIFFERENCES or not self._differences:
            return "; ".join(map(self._in_words, self.run[:MOST_DIFFERENCES]))
        sign = 1 if self.results.metric.higher_is_better else -1
        known = sorted(self._differences, key=lambda one: sign * one[1].summary.mean)
        return (
            f"of {len(known)} comparisons the most in favour: {self._in_words(known[-1][0])}; the "
            f"least: {self._in_words(known[0][0])}"
        )

    @property
    def _differences(self) -> list[tuple[Comparison, Difference]]:
        return [(c, c.difference) for c in self.comparisons if c.difference is not None]

    def _in_words(self, comparison: Comparison) -> str:
        found, places = comparison.difference, decimals(self.results)
        at = f" at {self.results.column} {text_of(comparison.column)}"
        at = at if len(self.results.columns) > 1 else ""
        rows = f"{comparison.row.name} against {comparison.reference.name}"
        spent = [row.settings["epochs"] for row in (comparison.row, comparison.reference)]
        unlike = spent[0] != spent[1]
        epochs = f" ({spent[0]:g} against {spent[1]:g} machine-epochs)" if unlike else ""
        diverged = [f"{comparison.diverged} {DIVERGED}"] if comparison.diverged else []
        if found is None:
            return f"{rows}{epochs}{at}: {''.join(diverged)}"
        least = comparison.detectable
        told = [f"n = {found.summary.n}"]
        told += [] if self.claim.margin is None else [f"margin {self.claim.margin:g}"]
        told += [] if least is None else [f"detectable {least:.{places}f}"]
        told += diverged
        difference = f"{interval(found.summary, places, '+')} {points(self.results.metric.unit)}"
        return f"{rows}{epochs}{at}: {difference.rstrip()} ({', '.join(told)})"


def answers_of(spec: AblationSpec, all_results: Sequence[Results]) -> list[Answer]:
    """Return the answers of one ablation, question by question, each on every task."""
    found = [
        Answer(claim, results, tuple(of_claim(results, claim)))
        for claim in spec.claims
        for results in all_results
    ]
    # where a question is about another task's rows, its not being there is no news
    spoken = {id(answer.claim) for answer in found if answer.comparisons}
    return [a for a in found if a.comparisons or id(a.claim) not in spoken]


def answers_at(results: Path, scale: str, specs: Sequence[AblationSpec]) -> list[Answer]:
    """Return the answers of ablations at a scale, from what is published of them alone."""
    return [a for spec in specs for a in answers_of(spec, results_at(results, scale, spec))]


def answer_grid(answers: Sequence[Answer], title: str) -> Grid:
    """Return one line an answer, what is known first."""
    body = [
        (
            Text(f"{answer.claim.asks} ({answer.results.ablation}, {answer.results.task})"),
            Text(answer.verdict),
            Text(answer.differences or NOTHING),
        )
        for answer in sorted(answers, key=lambda answer: not answer.run)
    ]
    return Grid(title, ("question", "answer", "differences"), tuple(body), keys=1, notes=(BOUNDS,))


def answers_text(answers: Sequence[Answer], scale: str) -> str:
    """Return what answers.md holds."""
    grid = answer_grid(answers, f"What the results of scale {scale} say")
    made = f"Made from the trials.jsonl of each ablation by: gapbench publish --scale {scale}"
    table = Table(f"Answers, scale {scale}", made, "", (grid,))
    return markdown([table])


def write_answers(results: Path, scale: str, specs: Sequence[AblationSpec]) -> Path:
    """Write the answers of a scale from what is published of it.

    Raises:
        UserError: if a link is on the way, or the file cannot be written.
    """
    path = results / scale / ANSWERS
    require_real(path, results)
    try:
        path.write_text(answers_text(answers_at(results, scale, specs), scale), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def check_answers(results: Path, scale: str, specs: Sequence[AblationSpec]) -> tuple[Path, bool]:
    """Say whether answers.md is what the published trials give, or both are missing."""
    path, answers = results / scale / ANSWERS, answers_at(results, scale, specs)
    if not is_plain(path):
        return path, not answers
    return path, path.read_bytes() == answers_text(answers, scale).encode()
