"""The answers as a picture."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from gapbench.analysis.cells import results_of
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.comparisons import of_claim
from gapbench.analysis.evaluation import Answer
from gapbench.report.forest import _limits, forest, forest_files
from gapbench.spec.schema import Claim
from tests.report.folders import around, entry_of, spec_of, trial_of, write_result

CLAIMS = (
    {"asks": "Better?", "better": {"method": "c_gap"}, "than": {"method": "rigl"}},
    {"asks": "As good?", "better": {"method": "c_gap"}, "than": {"method": "dense"}, "margin": 0.5},
)


def answers(folder: Path, n: int = 6, **report: object) -> list[Answer]:
    entries = []
    for method, mean in (("dense", 91.0), ("rigl", 88.0), ("c_gap", 90.0)):
        for seed, value in enumerate(around(mean, 0.1, n)):
            entries.append(entry_of(trial_of(method, seed=seed)))
            write_result(folder, entries[-1].trial, value, {"test/loss": 100 - value})
    entries.append(entry_of(trial_of("static")))
    (found,) = results_of(runs_frame(entries, scan(folder)), spec_of(rows=["label"], **report))
    claims = [Claim.model_validate(claim) for claim in CLAIMS]
    return [Answer(claim, found, tuple(of_claim(found, claim))) for claim in claims]


def test_a_line_has_difference_interval_word_and_the_published_difference(tmp_path: Path) -> None:
    files = forest_files(answers(tmp_path))
    assert files is not None and files["svg"].startswith(b"<?xml") and files["png"]
    frame = pd.read_csv(io.BytesIO(files["csv"]))
    assert list(frame["question"]) == ["Better?", "As good?"]
    assert list(frame["difference"]) == pytest.approx([2.0, -1.0])
    assert list(frame["half_width"]) == pytest.approx([0.1409] * 2, abs=1e-4)  # 2.228 x .063246
    assert list(frame["answer"]) == ["supported", "contradicted"]
    # the slides' C-GaP with 4 partitions 76.3, RigL 72.0 and dense 78.2
    assert list(frame["published"]) == pytest.approx([4.3, -1.9])


@pytest.mark.parametrize(("value", "sign"), [("test/accuracy", 1), ("test/loss", -1)])
def test_the_right_side_is_in_favour_of_the_claim(tmp_path: Path, value: str, sign: int) -> None:
    supported, contradicted = answers(tmp_path, value=value)
    assert [supported.verdict, contradicted.verdict] == ["supported", "contradicted"]
    drawn = forest([supported, contradicted])
    assert drawn is not None
    (ax,) = drawn[0].axes
    left, right = ax.get_xlim()
    assert (right - left) * sign > 0
    for answer, word in ((supported, 1), (contradicted, -1)):
        (found,) = answer.comparisons
        assert found.difference is not None and found.difference.mean * sign * word > 0


def test_the_picture_shows_margins_bounds_and_words(tmp_path: Path) -> None:
    drawn = forest(answers(tmp_path))
    assert drawn is not None
    (ax,) = drawn[0].axes
    words = [text.get_text() for text in ax.texts]
    names = ["C-GaP − RigL, 90 % sparse", "C-GaP − Dense, 90 % sparse"]
    assert words == [names[0], "supported", names[1], "contradicted"]
    assert {text.get_weight() for text in ax.texts[1::2]} == {"bold"}
    (shaded,) = ax.patches
    assert [shaded.get_x(), shaded.get_x() + shaded.get_width()] == pytest.approx([-0.3, 0.3])
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert [list(line.get_xdata()) for line in dotted] == [[-0.5, -0.5]]
    told = "shaded: equivalent; dotted: margin of as good; ○: published"
    assert ax.get_xlabel().splitlines()[1] == told


def test_seeds_without_spread_have_no_interval_and_nothing_run_no_picture(tmp_path: Path) -> None:
    files = forest_files(answers(tmp_path / "one", n=1))
    assert files is not None
    assert pd.read_csv(io.BytesIO(files["csv"]))["answer"].tolist() == ["not resolved"] * 2
    assert forest_files(answers(tmp_path / "none", n=0)) is None


def test_an_interval_that_is_far_wider_than_others_does_not_hide_them() -> None:
    low, high = _limits([(1.0, 0.5, None), (2.0, 0.5, 2.5), (0.0, 90.0, None)], 0.3)
    assert (low, high) == pytest.approx((-1.5 - 0.2, 2.5 + 0.2))  # three times .5, and a twentieth
    assert _limits([(1.0, float("inf"), None)], 0.0) == pytest.approx((-0.05, 1.05))
