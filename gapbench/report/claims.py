"""docs/claims.md: every claim, the command that tests it, and the measurements at each scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2

from gapbench.analysis.cells import WORDS
from gapbench.analysis.evaluation import NO_ROWS, NOT_RUN, Answer, published_evaluations
from gapbench.analysis.published import Published, published_pairs
from gapbench.errors import NothingFound
from gapbench.methods.method import methods
from gapbench.report.answers import BOUNDS, PICTURE, differences_words, standings
from gapbench.report.counted import COUNTED, MAIN, STRATEGY, counted_grid, explored_grid
from gapbench.report.render import md_escape
from gapbench.report.tables import OWN_QUESTION, settings_words
from gapbench.spec.schema import AblationSpec, Claim
from gapbench.tasks.task import tasks

SCALES = ("mini", "small", "paper")  # what smoke trains is too little to say anything
OURS = f"nobody: {OWN_QUESTION}"


def claims_text(results: Path, specs: Mapping[Path, AblationSpec]) -> str:
    """Return the document from the claims of ablation files and published trials.

    Raises:
        UserError: if a trials.jsonl is damaged, or does not match its ablation.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gapbench.report", ""),
        autoescape=False,  # this is Markdown: every value goes through the filter md
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = md_escape
    found = {s: published_evaluations(results, s, specs.values()) for s in SCALES}
    answers = {scale: [a for e in known for a in e.answers] for scale, known in found.items()}
    where = {
        id(answer): words
        for own in answers.values()
        for answer, words in zip(own, standings(own), strict=True)
    }
    counted = []
    if all(file in specs and COUNTED in specs[file].scales for file in (MAIN, STRATEGY)):
        with suppress(NothingFound):  # rows were taken out
            counted.append(counted_grid())
    counted += [explored_grid(known, scale) for scale, known in found.items()]
    return environment.get_template("claims.md.j2").render(
        bounds=BOUNDS,
        scales=SCALES,
        pictures=[scale for scale in SCALES if (results / scale / PICTURE).is_file()],
        counted=[grid for grid in counted if grid.body],
        claims=[
            _claim(file, spec, claim, answers, where)
            for file, spec in specs.items()
            for claim in spec.claims
        ],
    )


def _claim(
    file: Path,
    spec: AblationSpec,
    claim: Claim,
    answers: Mapping[str, Sequence[Answer]],
    where: Mapping[int, str],
) -> dict[str, Any]:
    own = {
        scale: [a for a in found if a.results.ablation == spec.name and a.claim == claim]
        for scale, found in answers.items()
    }
    return {
        "asks": claim.asks,
        "source": claim.source or OURS,
        "file": file.as_posix(),
        "published": _published(claim, spec.name) if claim.source else [],
        "rows": _rows(claim),
        "short": [_short(own[scale]) for scale in SCALES],
        "scales": [scale for scale in SCALES if _short(own[scale]) != NO_ROWS],
        "measured": list(_measured(own, where)),
    }


def _short(answers: Sequence[Answer]) -> str:
    if len(answers) == 1:
        return answers[0].verdict
    return "; ".join(f"{a.results.task}: {a.verdict}" for a in answers) or NOT_RUN


def _measured(
    answers: Mapping[str, Sequence[Answer]], where: Mapping[int, str]
) -> Iterator[dict[str, str]]:
    for scale, found in answers.items():
        for answer in found:
            place = f"{scale}, {answer.results.task}"
            words = differences_words(answer)
            verdict = f"{answer.verdict} ({where[id(answer)]})" if answer.run else answer.verdict
            yield {"place": place, "verdict": verdict, "differences": words}
        if not found:
            yield {"place": scale, "verdict": NOT_RUN, "differences": ""}


def _rows(claim: Claim) -> str:
    words = f"{settings_words(claim.better)} against "
    words += settings_words({**claim.than, **claim.at})
    words += "" if claim.margin is None else f", as good within {claim.margin:g}"
    equal = {None: "", "epochs": ", at equal machine-epochs", "train_flops": ", at equal FLOPs"}
    return words + equal[claim.equal]


def _published(claim: Claim, ablation: str) -> list[str]:
    """Return the published values of both sides, pair by pair, from the ablation's own table."""
    pairs = published_pairs(claim)
    own = [pair for pair in pairs if pair[0].table == ablation]
    return [
        f"{_line(one)} {one.value} against {_line(other)} {other.value}, {_where(one)}"
        for one, other in own or pairs
    ]


def _line(line: Published) -> str:
    """Return a description of a published line."""
    words = methods[line.method].label
    words += f" {line.multiplier}x" if line.multiplier not in (None, 1) else ""
    details = [] if line.method == "dense" else [WORDS.get(line.distribution, line.distribution)]
    details += [f"κ = {line.partitions}"] if line.partitions is not None else []
    details += [line.strategy] if line.strategy == "random" else []
    return f"{words} ({', '.join(details)})" if details else words


def _where(line: Published) -> str:
    unit = tasks[line.task].metric.unit if line.task in tasks else line.metric
    return f"{unit}, {100 * line.sparsity:g} % sparse, {line.task}"
