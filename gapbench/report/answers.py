"""The answers to the questions of ablations in words, written to results/<scale>/README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import (
    DIVERGED,
    Answer,
    Evaluation,
    confirming,
    published_evaluations,
)
from gapbench.analysis.looks import LOOKS
from gapbench.analysis.proxy import checks
from gapbench.analysis.records import COMPLETED, NOTHING, is_given, text_of
from gapbench.analysis.sequential import MOST_SEEDS
from gapbench.base.documents import is_plain, require_real, write_text
from gapbench.errors import UserError
from gapbench.report.drawing import for_both_schemes, save
from gapbench.report.forest import forest_files
from gapbench.report.grids import Grid, Table, Text, decimals
from gapbench.report.notes import LOOKS_WORDS, points
from gapbench.report.proxy import proxy_grid
from gapbench.report.render import markdown
from gapbench.report.tables import difference_words, seeds_words
from gapbench.spec.schema import AblationSpec

ANSWERS = "README.md"
INTRODUCTION = (
    "gapbench publish --scale {0} makes this page from the trials.jsonl of each ablation; no "
    "number is entered by hand. A trials.jsonl describes every completed trial and holds its "
    "measurements. table.md and the figures are made from the trials.jsonl beside them. gapbench "
    "report makes all tables, figures and a page; gapbench report --check compares the files here "
    "with the trials; gapbench reproduce KEY runs one trial again."
)
PICTURE = "answers.svg"
LEGEND = (
    "Differences to the right favour the claim. Rows count as equivalent inside the shaded band. A "
    "dotted line is the margin within which a row is as good. A hollow mark is the published "
    "difference on the paper's task."
)
SHARED = (
    "A trial that two ablations share is trained once and counted in both. Hours are wall-clock "
    "hours; most trials ran two at a time."
)
MOST_DIFFERENCES = 4  # more than these are summed up by the most and the least favourable
BOUNDS = (
    "A difference is the difference of means over all seeds ± the half-width of its 95 % Welch "
    "t-interval, without correction for multiple comparisons. The answers come from planned looks: "
    f"{LOOKS_WORDS} (docs/analysis.md). Each level is stricter than 0.05, so the 95 % interval of "
    "a comparison that is not resolved may exclude 0. Supported: the test of the look finds a "
    "difference in favour of the claim. Contradicted: the test finds a difference against the "
    "claim. Equivalent within m: two one-sided tests place the difference within m. A claim that a "
    "row is as good within a margin is contradicted if the row is worse by more than the margin. "
    "Confirmatory: the claim is in the fixed sequence of the slides' claims, and all earlier "
    "claims of the sequence are supported at this sparsity; each sparsity has its own sequence and "
    "its own level. All other answers are exploratory. Detectable: the true difference that the "
    "last look finds with 80 % power. Seeds needed: the number of seeds that would resolve the "
    "measured difference."
)


def differences_words(answer: Answer) -> str:
    """Return the differences in words; of many, only the most and least favourable difference."""
    if len(answer.run) <= MOST_DIFFERENCES or not answer.differences:
        return "; ".join(_in_words(answer, one) for one in answer.run[:MOST_DIFFERENCES])
    sign = 1 if answer.results.metric.higher_is_better else -1
    known = sorted(answer.differences, key=lambda one: sign * one[1].mean)
    return (
        f"{len(known)} comparisons; most in favour: {_in_words(answer, known[-1][0])}; least in "
        f"favour: {_in_words(answer, known[0][0])}"
    )


def _in_words(answer: Answer, comparison: Comparison) -> str:
    results = answer.results
    found, places = comparison.difference, decimals(results)
    at = f" at {results.column} {text_of(comparison.column)}"
    at = at if len(results.columns) > 1 else ""
    rows = f"{comparison.row.name} against {comparison.reference.name}"
    spent = [row.settings["epochs"] for row in (comparison.row, comparison.reference)]
    unlike = spent[0] != spent[1]
    epochs = f" ({spent[0]:g} against {spent[1]:g} machine-epochs)" if unlike else ""
    diverged = [f"{comparison.diverged} {DIVERGED}"] if comparison.diverged else []
    if found is None:
        return f"{rows}{epochs}{at}: {''.join(diverged)}"
    least = comparison.detectable
    told = [f"n = {seeds_words(comparison)}"]
    told += [] if answer.claim.margin is None else [f"margin {answer.claim.margin:g}"]
    told += [] if least is None else [f"detectable {least:.{places}f}"]
    if comparison.answer.n == 0:
        told += [f"first look at {LOOKS[0][0]} seeds"]
    elif comparison.needed is not None:
        about = "more than" if comparison.needed == MOST_SEEDS else "about"
        told += [f"{about} {comparison.needed} seeds needed"]
    told += diverged
    difference = f"{difference_words(found, places)} {points(results.metric.unit)}"
    return f"{rows}{epochs}{at}: {difference.rstrip()} ({', '.join(told)})"


def standings(answers: Sequence[Answer]) -> list[str]:
    """Return, for each answer, the columns in which it confirms, in words."""
    words = []
    for answer, columns in zip(answers, confirming(answers), strict=True):
        there = {c.column for c in answer.run}
        if not columns:
            words.append("exploratory")
        elif there <= set(columns):
            words.append("confirmatory")
        else:
            where = ", ".join(map(text_of, columns))
            words.append(f"confirmatory at {answer.results.column} {where}, else exploratory")
    return words


def answer_grid(answers: Sequence[Answer], title: str) -> Grid:
    """Return a grid with one line per answer, known answers first."""
    # a single claim cannot say whether the claims before it are supported
    whole = any(answer.claim.sequence == 1 for answer in answers)
    body = [
        (
            Text(f"{answer.claim.asks} ({answer.results.ablation}, {answer.results.task})"),
            Text(answer.verdict),
            *([Text(standing if answer.run else NOTHING)] if whole else []),
            Text(differences_words(answer) or NOTHING),
        )
        for answer, standing in sorted(
            zip(answers, standings(answers), strict=True), key=lambda pair: not pair[0].run
        )
    ]
    heads = ("question", "answer", *(["standing"] if whole else []), "differences")
    return Grid(title, heads, tuple(body), keys=1, notes=(BOUNDS,))


def answers_text(evaluations: Sequence[Evaluation], scale: str) -> str:
    """Return the README.md of a scale: tests of the proxies, answers, and costs."""
    trials = [trial for one in evaluations for trial in one.frame.to_dict("records")]
    answers = [answer for one in evaluations for answer in one.answers]
    grids = (
        proxy_grid(checks(trials)),
        answer_grid(answers, "Answers to the claims"),
        _cost_grid(evaluations),
    )
    text = markdown([Table(f"Results at scale {scale}", INTRODUCTION.format(scale), "", grids)])
    return f"{text}\n![Measured differences, claim by claim]({PICTURE})\n\n{LEGEND}\n"


def _cost_grid(evaluations: Sequence[Evaluation]) -> Grid:
    """Return a grid with the trials, training times and processors of each ablation."""
    body = []
    for one in evaluations:
        done = [t for t in one.frame.to_dict("records") if t["state"] == COMPLETED]
        hours = sum(t["run/seconds"] for t in done if is_given(t.get("run/seconds"))) / 3600
        machines = sorted({str(t["environment/cpu"]) for t in done if t.get("environment/cpu")})
        counts = (Text(str(len(done)), float(len(done))), Text(f"{hours:.1f}", hours))
        body.append((Text(one.spec.name), *counts, Text(", ".join(machines) or NOTHING)))
    heads = ("ablation", "trials", "hours of trials", "processor")
    return Grid("Trials and training time", heads, tuple(body), keys=1, notes=(SHARED,))


def write_answers(results: Path, scale: str, specs: Sequence[AblationSpec]) -> Path:
    """Write the README.md of a scale, and its picture, from published trials.

    Raises:
        UserError: if the path has a link, or the file cannot be written.
    """
    path = results / scale / ANSWERS
    found = published_evaluations(results, scale, specs)
    drawn = forest_files([answer for one in found for answer in one.answers])
    try:
        for place in (path, path.with_name(PICTURE)):
            require_real(place, results)
        write_text(path, answers_text(found, scale))
        if drawn is not None:
            save({"svg": for_both_schemes(drawn["svg"])}, path.parent, Path(PICTURE).stem)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def check_answers(results: Path, scale: str, specs: Sequence[AblationSpec]) -> tuple[Path, bool]:
    """Return the path of a scale's README.md, and whether it matches the published trials."""
    path, found = results / scale / ANSWERS, published_evaluations(results, scale, specs)
    if not is_plain(path):
        return path, not found
    return path, path.read_bytes() == answers_text(found, scale).encode()
