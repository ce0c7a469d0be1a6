from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from scipy.stats import ttest_ind

from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.evaluation import evaluate
from gapbench.analysis.histories import read_histories
from gapbench.report.canvas import Evidence, evidence_of, panels
from gapbench.report.drawing import draw, title_of
from gapbench.report.ends import name_lines
from gapbench.report.page import _figure
from gapbench.report.values import scale_of
from tests.report.folders import entry_of, spec_of, trial_of, write_result

SPARSITIES = (0.8, 0.9, 0.95)
OFF = (-0.3, 0.1, 0.2)  # of three seeds, with a mean of 0
FIGURES = ("accuracy_vs_sparsity", "accuracy_vs_partitions", "accuracy_vs_epochs")


@pytest.fixture
def style() -> Iterator[None]:
    path = resources.files("gapbench.report").joinpath("gapbench.mplstyle")
    with matplotlib.rc_context(fname=str(path)):
        yield


def evidence(
    tmp_path: Path, gaps: Sequence[float], seeds: int = 3, claimed: bool = True
) -> Evidence:
    """Return evidence of two partitions that are `gaps` apart, with RigL as distant context."""
    entries = []
    for (sparsity, gap), off in itertools.product(
        zip(SPARSITIES, gaps, strict=False), list(enumerate(OFF))[:seeds]
    ):
        for value, trial in (
            (88 + off[1], trial_of(partitions=4, sparsity=sparsity, seed=off[0])),
            (88 + gap + 2 * off[1], trial_of(partitions=1, sparsity=sparsity, seed=off[0])),
            (80 + off[1], trial_of("rigl", sparsity=sparsity, seed=off[0])),
        ):
            write_result(tmp_path, trial, value)
            entries.append(entry_of(trial))
    spec = spec_of(rows=["label", "partitions"], baseline={"method": "c_gap", "partitions": 4})
    found = scan(tmp_path)
    frame = runs_frame(entries, found)
    (task,) = evaluate(frame, spec).tasks
    first = [row.name for row in task.results.rows if row.method == "c_gap"] if claimed else []
    baseline = task.to_baseline, spec.report.baseline
    histories = read_histories(found.runs.values(), [], ())
    return evidence_of(task.results, frame, histories, first, *baseline)


def is_difference(found: Evidence) -> bool:
    return "difference to C-GaP, κ = 4, points" in scale_of(found).axis.replace("\n", " ")


@pytest.mark.parametrize(
    ("gaps", "near"),
    [([0.4], True), ([-0.99], True), ([1.01], False), ([0.4, 0.4, 3], True), ([0.4, 3, 3], False)],
)
def test_differences_are_drawn_where_what_is_compared_lies_within_a_point_in_most_columns(
    tmp_path: Path, gaps: list[float], near: bool
) -> None:
    found = evidence(tmp_path, gaps)
    assert is_difference(found) == near
    scale = scale_of(found)
    assert ("difference" in scale.frame) == bool(scale.caption) == bool(scale.left_out) == near
    if not near:
        assert scale.axis == "test accuracy (%)\nmean ± 95 % t-interval"
        assert scale.drawn is scale.frame


def test_rows_are_all_compared_where_no_claim_compares_any(tmp_path: Path) -> None:
    assert not is_difference(evidence(tmp_path, [0.4], claimed=False))  # RigL is far away


def test_a_difference_has_welchs_interval_and_the_baseline_is_the_line_at_0(tmp_path: Path) -> None:
    scale = scale_of(evidence(tmp_path, [0.4]))
    drawn = scale.drawn.set_index("row")
    assert list(drawn.index) == ["C-GaP, κ = 4", "C-GaP, κ = 1"]
    assert drawn["mean"]["C-GaP, κ = 4"] == 0 and drawn["half_width"].isna()["C-GaP, κ = 4"]
    mine, theirs = [88.4 + 2 * off for off in OFF], [88 + off for off in OFF]
    low, high = ttest_ind(mine, theirs, equal_var=False).confidence_interval()
    assert drawn["mean"]["C-GaP, κ = 1"] == pytest.approx((low + high) / 2)
    assert drawn["half_width"]["C-GaP, κ = 1"] == pytest.approx((high - low) / 2)
    assert scale.frame["mean"].iloc[0] == pytest.approx(88)  # the CSV has both
    assert scale.left_out == "not on this axis: RigL (-8.0)"


def test_one_seed_has_a_difference_without_an_interval(tmp_path: Path) -> None:
    scale = scale_of(evidence(tmp_path, [0.4], seeds=1))
    assert scale.drawn["half_width"].isna().all() and "Welch" not in scale.axis + scale.caption


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_differences_says_so_to_all_readers(tmp_path: Path, name: str) -> None:
    files = draw(name, evidence(tmp_path / "near", [0.4]))
    assert files is not None
    words = "differences to C-GaP, κ = 4, in points with 95 % Welch t-intervals"
    assert words in title_of(files["svg"])
    path = tmp_path / f"{name}.svg"
    path.write_bytes(files["svg"])
    shown = _figure(path, "fashion_mnist", "partitions")
    assert words in shown["caption"] and words in shown["picture"]
    assert "not on this axis: RigL" in shown["caption"] and "<title>" not in shown["picture"]
    files = draw(name, evidence(tmp_path / "far", [3]))
    assert files is not None and title_of(files["svg"]) == ""


ENDS: dict[str, tuple[float, float]] = {
    "first": (10, 1.0),
    "second": (10, 5.0),
    "ends early": (4, 9.0),
}


def figure_of(ends: Mapping[str, tuple[float, float]], count: int = 1) -> Figure:
    made, axes, _ = panels(range(count), width=3.6, height=3.2)
    for ax in axes:
        for name, (x, y) in ends.items():
            ax.plot([0, x], [y, y], label=name)
    name_lines(made, axes)
    return made


def names_at_ends(made: Figure) -> list[str]:
    return [text.get_text() for text in made.axes[-1].texts]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_names_at_ends_are_apart_and_inside_the_figure(style: None, count: int) -> None:
    made = figure_of(ENDS, count)
    assert names_at_ends(made) == list(ENDS) and not made.legends
    assert not any(ax.texts for ax in made.axes[:-1])
    made.draw_without_rendering()
    boxes = [text.get_window_extent() for text in made.axes[-1].texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(made.bbox.count_contains(box.corners()) == 4 for box in boxes)
    right = made.axes[-1].get_window_extent().x1
    assert [box.x0 > right for box in boxes] == [True, True, False]


@pytest.mark.parametrize(
    ("ends", "count"),
    [
        ({**ENDS, "third": (10, 1.1)}, 1),  # two names would overlap
        ({**ENDS, "fourth": (4, 5.1)}, 1),  # a name would be written over a line
        ({**ENDS, "a name that is longer than others": (10, 7.0)}, 1),
        ({str(number): (10, number) for number in range(7)}, 1),
        (ENDS, 4),  # two rows of panels
    ],
)
def test_names_without_room_stand_in_one_legend(
    style: None, ends: Mapping[str, tuple[float, float]], count: int
) -> None:
    made = figure_of(ends, count)
    assert not any(ax.texts for ax in made.axes)
    (legend,) = made.legends
    assert [text.get_text() for text in legend.get_texts()] == list(ends)
