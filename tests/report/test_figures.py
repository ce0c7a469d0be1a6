from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from gapbench.analysis.cells import results_of
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.histories import KINDS, read_histories
from gapbench.analysis.published import published
from gapbench.errors import UserError
from gapbench.methods.method import methods
from gapbench.report import drawing
from gapbench.report.canvas import (
    Evidence,
    evidence_of,
    figures,
    legend_names,
    lines_of,
    looks,
    panels,
)
from gapbench.report.drawing import draw, unshown
from gapbench.report.figures.anytime import _spans
from gapbench.report.points import pareto
from gapbench.spec.trials import Trial
from tests.report.folders import entry_of, spec_of, trial_of, write_run

OWN = {name: look for name in methods if (look := methods[name].look) is not None}
TRIALS = [
    trial_of("dense"),
    trial_of(),
    trial_of(sparsity=0.8),
    trial_of("rigl"),
    trial_of("p_gap"),
]


def evidence(
    tmp_path: Path,
    run: bool = True,
    trials: Sequence[Trial] = TRIALS,
    seeds: int = 2,
    kinds: Collection[str] = KINDS,
    rows: Sequence[str] = ("label",),
    name: str | None = None,
) -> Evidence:
    entries = []
    for seed in range(seeds):
        for trial in (trial.model_copy(update={"seed": seed}) for trial in trials):
            entries.append(entry_of(trial, name))
            if run:
                write_run(tmp_path, trial, 88.0 + seed + trial.sparsity)
    found = scan(tmp_path)
    frame = runs_frame(entries, found)
    (results,) = results_of(frame, spec_of(rows=list(rows)))
    names = ["val/accuracy", "train/loss", "val/loss"]
    return evidence_of(results, frame, read_histories(found.runs.values(), names, kinds))


def plotted(tmp_path: Path, name: str) -> pd.DataFrame:
    return drawn_of(evidence(tmp_path), name)[1]


def drawn_of(found: Evidence, name: str) -> tuple[Figure, pd.DataFrame]:
    with matplotlib.rc_context({"text.parse_math": False}):  # as in every file
        drawn = figures[name](found)
    assert drawn is not None
    return drawn


def legend_of(made: Figure) -> list[str]:
    """Return the names of lines, in the legend or at the lines' ends."""
    texts = made.legends[0].get_texts() if made.legends else made.axes[-1].texts
    return [text.get_text() for text in texts]


def long_names(found: Evidence) -> None:
    """Call one layer as a Transformer calls its layers."""
    long = "decoder.layers.0.encoder_attn.out_proj.weight"
    layers, changes = found.histories.layers, found.histories.changes
    layers["layer"] = layers["layer"].replace("fc.weight", long)
    changes["iou"] = [iou and dict.fromkeys([long], 0.7) for iou in changes["iou"]]


@pytest.mark.parametrize("name", list(figures))
def test_every_figure_is_the_same_to_the_byte_when_drawn_again(tmp_path: Path, name: str) -> None:
    first = draw(name, evidence(tmp_path))
    # this time from the lines alone that it says it draws
    second = draw(name, evidence(tmp_path, run=False, kinds=lines_of([name])))
    assert first is not None and set(first) == {"png", "svg", "csv"}
    assert first == second
    assert first["png"].startswith(b"\x89PNG") and b"<svg" in first["svg"]


@pytest.mark.parametrize("name", list(figures))
def test_a_figure_without_runs_is_not_drawn(tmp_path: Path, name: str) -> None:
    assert draw(name, evidence(tmp_path, run=False)) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", list(figures))
@pytest.mark.parametrize("method", ["dense", "c_gap"])
def test_a_figure_of_one_trial_is_drawn_without_a_warning(
    tmp_path: Path, name: str, method: str
) -> None:
    draw(name, evidence(tmp_path, trials=[trial_of(method)], seeds=1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", list(figures))
def test_names_are_drawn_as_they_are(tmp_path: Path, name: str) -> None:
    counts = [trial_of(partitions=4), trial_of(partitions=1), trial_of("p_gap", partitions=2)]
    found = evidence(tmp_path, trials=counts, rows=("label", "partitions"), name="_$5_% to $6_%")
    drawn = draw(name, found)
    assert drawn is not None
    words = drawn["svg"].decode()
    assert "$5_% to $6_%" in words and "mathdefault" not in words
    if name not in ("means", "mask_iou", "branch_iou", "layer_density", "anytime"):
        made, _ = drawn_of(found, name)  # those stand at an axis, or over a panel
        assert any("$5_% to $6_%" in text for text in legend_of(made))


def test_an_unknown_figure_is_named_with_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown figure 'coverag': did you mean 'coverage'"):
        draw("coverag", evidence(tmp_path))


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw("means", evidence(tmp_path))
    assert dict(matplotlib.rcParams) == before


def test_accuracy_figures_plot_the_means_of_the_table(tmp_path: Path) -> None:
    frame = plotted(tmp_path, "accuracy_vs_sparsity")
    own = frame[(frame["row"] == "C-GaP") & (frame["column"] == 0.9)].iloc[0]
    assert own["mean"] == pytest.approx(88.9 + 0.5) and own["n"] == 2
    assert own["half_width"] == pytest.approx(12.7062 * 0.5, rel=1e-4)  # t(1) x sd / sqrt 2
    assert pd.isna(own["published"])  # a value for another task shares no axis with ours


def test_the_number_of_partitions_has_an_axis_and_other_rows_go_across(tmp_path: Path) -> None:
    trials = [trial_of("dense"), trial_of("rigl"), trial_of(partitions=4), trial_of(partitions=1)]
    found = evidence(tmp_path, trials=trials, rows=("label", "partitions"))
    made, frame = drawn_of(found, "accuracy_vs_partitions")
    assert legend_of(made) == ["Dense", "RigL", "C-GaP"]
    counts = dict(zip(frame["row"], frame["partitions"], strict=True))
    assert counts["C-GaP, κ = 4"] == 4 and pd.isna(counts["RigL"])
    lines = [line.get_xdata() for line in made.axes[-1].get_lines() if len(line.get_xdata()) == 2]
    assert [1, 4] in [list(x) for x in lines]


def test_at_most_twelve_series_go_over_the_partitions_those_of_claims_first(tmp_path: Path) -> None:
    others = [name for name in methods if name not in ("small_dense", "c_gap", "dsd")]
    trials = [*map(trial_of, others), trial_of(partitions=4), trial_of(partitions=1)]
    found = evidence(tmp_path, trials=trials, seeds=1, rows=("label", "partitions"))
    found = dataclasses.replace(found, first=frozenset({"C-GaP, κ = 1"}))
    made, frame = drawn_of(found, "accuracy_vs_partitions")
    assert len(others) == 12 and len(legend_of(made)) == 12
    assert legend_of(made)[-1] == "C-GaP"  # the last of thirteen, but a claim is about it
    words = "12 of 13 series (series of claims first); the CSV has all series"
    assert made.get_suptitle() == words and frame["row"].nunique() == 14
    made, _ = drawn_of(dataclasses.replace(found, first=frozenset()), "accuracy_vs_partitions")
    assert len(legend_of(made)) == 12 and "C-GaP" not in legend_of(made)


def test_costs_that_are_all_alike_have_a_number_at_their_axis(tmp_path: Path) -> None:
    drawn = figures["accuracy_vs_flops"](evidence(tmp_path))
    assert drawn is not None
    for ax in drawn[0].axes:
        low, high = ax.get_xlim()
        assert low < 0.375 < high and any(low <= tick <= high for tick in ax.get_xticks())


def test_published_values_have_a_look_of_their_own_and_one_entry(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert "published" not in legend_of(drawn_of(found, "accuracy_vs_sparsity")[0])
    paper = dataclasses.replace(published()[0], task="fashion_mnist", value="91.5")
    rows = tuple(
        dataclasses.replace(row, cells=tuple(
            dataclasses.replace(cell, published=paper) for cell in row.cells
        ))
        for row in found.results.rows
    )  # fmt: skip
    found = dataclasses.replace(found, results=dataclasses.replace(found.results, rows=rows))
    made, _ = drawn_of(found, "accuracy_vs_sparsity")
    assert legend_of(made).count("published") == 1
    (ax,) = made.axes
    values = [line for line in ax.lines if 91.5 in list(line.get_ydata())]
    sparse = [row for row in rows if row.method != "dense"]
    assert [line.get_color() for line in values] == [looks(rows)[row.name].colour for row in sparse]
    methods = {marker for _, marker in OWN.values()}
    assert {line.get_marker() for line in values}.isdisjoint(methods)
    (ours,) = (bars for bars in ax.containers if bars.get_label() == "RigL")
    (theirs,) = (line for line in values if line.get_color() == looks(rows)["RigL"].colour)
    assert list(theirs.get_xdata()) == list(ours.lines[0].get_xdata())  # they stand together


INTERVALS = (
    "accuracy_vs_partitions",
    "accuracy_vs_sparsity",
    "accuracy_vs_flops",
    "accuracy_vs_epochs",
    "means",
)


@pytest.mark.parametrize("name", INTERVALS)
def test_bars_are_explained_where_there_are_some(tmp_path: Path, name: str) -> None:
    words = "mean ± 95 % t-interval"
    made, _ = drawn_of(evidence(tmp_path), name)
    labels = [text for ax in made.axes for text in (ax.get_xlabel(), ax.get_ylabel())]
    assert any(words in label for label in labels)
    assert "95 % t-interval" in (figures[name].__doc__ or "").splitlines()[0]  # the caption
    made, _ = drawn_of(evidence(tmp_path / "one", seeds=1), name)
    assert not any(words in ax.get_xlabel() + ax.get_ylabel() for ax in made.axes)


def test_the_front_is_explained_and_only_where_it_is_drawn(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    made, frame = drawn_of(found, "accuracy_vs_flops")
    assert legend_of(made)[-1] == "Pareto front of means" and frame["on_front"].any()
    made, frame = drawn_of(found, "accuracy_vs_epochs")
    assert "Pareto front of means" not in legend_of(made) and "on_front" not in frame


def test_legends_say_of_which_rows_only_some_seeds_have_run(tmp_path: Path) -> None:
    trials = [trial_of("dense"), trial_of(), trial_of(sparsity=0.8), trial_of("rigl")]
    for trial, seeds in zip(trials, (2, 1, 3, 3), strict=True):
        for seed in range(seeds):
            write_run(tmp_path, trial.model_copy(update={"seed": seed}), 88.0 + seed)
    found = evidence(tmp_path, run=False, trials=trials, seeds=3)
    names = ["Dense (2/3)", "C-GaP (1/3 at 0.9)", "RigL"]
    assert list(legend_names(found.results).values()) == names
    for figure in ("accuracy_vs_sparsity", "accuracy_vs_flops", "accuracy_vs_epochs"):
        assert set(names) <= set(legend_of(drawn_of(found, figure)[0]))
    whole = legend_of(drawn_of(found, "accuracy_vs_partitions")[0])
    assert whole == names
    for figure in ("coverage", "prune_shock", "loss_curves"):
        assert names[1] in legend_of(drawn_of(found, figure)[0])
    assert [ax.get_title() for ax in drawn_of(found, "anytime")[0].axes] == names
    (first, *_) = drawn_of(found, "means")[0].axes
    assert [label.get_text() for label in first.get_yticklabels()] == names


def test_the_pareto_front_holds_what_nothing_cheaper_beats() -> None:
    frame = pd.DataFrame({"cost": [3, 1, 2, 2, 4], "mean": [9.0, 5.0, 4.0, 7.0, 8.0]})
    assert list(pareto(frame, "cost").index) == [1, 3, 0]
    assert list(pareto(frame, "cost", higher_is_better=False).index) == [1, 2]


def test_coverage_is_averaged_over_seeds_epoch_by_epoch(tmp_path: Path) -> None:
    frame = plotted(tmp_path, "coverage")
    own = frame[(frame["row"] == "C-GaP") & (frame["column"] == 0.9)]
    assert list(own["epoch"]) == [1, 2, 3, 4]
    assert list(own["coverage"]) == pytest.approx([0.3, 0.6, 0.9, 1.0])


def test_coverage_of_branches_never_falls(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    curves = found.histories.curves
    curves.loc[(curves["row"] == "P-GaP") & (curves["epoch"] == 3), "coverage"] = 0.2
    drawn = figures["coverage"](found)
    assert drawn is not None
    own = drawn[1][drawn[1]["row"] == "P-GaP"]
    assert list(own["coverage"]) == pytest.approx([0.3, 0.6, 0.6, 1.0])


def test_mask_iou_has_a_value_for_each_layer_and_prune(tmp_path: Path) -> None:
    frame = plotted(tmp_path, "mask_iou")
    own = frame[(frame["row"] == "C-GaP") & (frame["column"] == 0.9)]
    assert list(own["epoch"]) == [1.0, 2.0] and set(own["layer"]) == {"fc.weight"}
    assert list(own["iou"]) == pytest.approx([0.7, 0.7])


def test_layers_stand_in_model_order_under_one_another(tmp_path: Path) -> None:
    trials = [trial_of("set"), trial_of("c_gap", distribution="global_magnitude")]
    found = evidence(tmp_path, trials=trials)
    layers = found.histories.layers
    fewer = layers[(layers["row"] != "SET") | (layers["numel"] != 144)]
    found = dataclasses.replace(found, histories=dataclasses.replace(found.histories, layers=fewer))
    made, _ = drawn_of(found, "layer_density")
    names = [label.get_text() for label in made.axes[-1].get_xticklabels()]
    assert names == ["conv1", "layer1.0.conv1", "fc"]
    one, other = ([bar.get_height() for bar in ax.patches] for ax in made.axes)
    assert pd.isna(one[0]) and not pd.isna(one[1:]).any() and not pd.isna(other).any()


def test_panels_of_mask_iou_share_names_and_a_bar_of_colours(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    long_names(found)
    made, _ = drawn_of(found, "mask_iou")
    (left, right, *_), bar = made.axes[:-1], made.axes[-1]
    assert left.yaxis.get_tick_params()["labelleft"] and bar.get_ylabel() == "IoU"
    assert not right.yaxis.get_tick_params()["labelleft"]
    assert left.get_ylim() == right.get_ylim()


@pytest.mark.parametrize("name", list(figures))
def test_nothing_is_cut_at_the_edge_of_a_figure(tmp_path: Path, name: str) -> None:
    found = evidence(tmp_path)
    long_names(found)
    files = draw(name, found)
    assert files is not None
    picture = imread(io.BytesIO(files["png"]))[..., :3]
    for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert (edge == 1).all()


def test_branches_differ_by_what_their_partitions_have_moved(tmp_path: Path) -> None:
    frame = plotted(tmp_path, "branch_iou")
    assert list(frame["row"].unique()) == ["P-GaP"]
    values = frame.set_index(["branch", "other"])["iou"]
    assert values[1, 1] == values[2, 2] == 1.0 and values[1, 2] == values[2, 1]
    kept = {"conv1.weight": 14.4, "layer1.0.conv1.weight": 230.4, "fc.weight": 64.0}
    moved = kept["conv1.weight"] + kept["fc.weight"]
    shared = kept["layer1.0.conv1.weight"] + moved * 2 * 0.7 / 1.7
    covered = kept["layer1.0.conv1.weight"] + moved * 2 / 1.7
    assert values[1, 2] == pytest.approx(shared / covered)


def test_prune_shock_is_the_metric_after_minus_before(tmp_path: Path) -> None:
    frame = plotted(tmp_path, "prune_shock")
    assert set(frame["change"].round(9)) == {-1.5}
    assert sorted(set(frame["mask_error"])) == [0.02, 0.04]


def test_prune_shock_has_panels_of_its_own_for_every_column(tmp_path: Path) -> None:
    made, frame = drawn_of(evidence(tmp_path), "prune_shock")
    assert [ax.get_title() for ax in made.axes] == ["sparsity 0.8"] * 2 + ["sparsity 0.9"] * 2
    for ax, column in zip(made.axes, (0.8, 0.8, 0.9, 0.9), strict=True):
        shown = sum(len(line.get_xdata()) for line in ax.lines)
        assert shown == (frame["column"] == column).sum() > 0


def test_losses_are_of_one_column_which_is_named(tmp_path: Path) -> None:
    made, frame = drawn_of(evidence(tmp_path), "loss_curves")
    assert set(frame["column"]) == {0.0, 0.8, 0.9}
    titles = ["train loss, sparsity 0.8", "val loss, sparsity 0.8"]
    assert [ax.get_title() for ax in made.axes] == titles
    # RigL and P-GaP have run at 0.9 alone; dense training is in every column
    assert legend_of(made) == ["Dense", "C-GaP"]


def test_the_anytime_curve_knows_what_the_plan_does(tmp_path: Path) -> None:
    frame = plotted(tmp_path, "anytime")
    own = frame[(frame["row"] == "C-GaP") & (frame["column"] == 0.9)]
    assert list(_spans(own)) == [("grow", 0.0, 4.0)]  # all that a run of 60 epochs has here
    roles = pd.DataFrame({"role": ["grow", "grow", "", "tune"], "epoch": [1, 2, 4, 5]})
    assert list(_spans(roles)) == [("grow", 0.0, 2.0), ("", 2.0, 4.0), ("tune", 4.0, 5.0)]


def test_a_method_has_one_colour_in_all_figures_and_its_variants_differ() -> None:
    spec = spec_of(rows=["label", "partitions"])
    trials = [trial_of(partitions=count) for count in (1, 2)] + [trial_of("rigl")]
    frame = runs_frame([entry_of(trial) for trial in trials], scan(Path("/nonexistent")))
    (results,) = results_of(frame, spec)
    one, two, rigl = looks(results.rows).values()
    assert matplotlib.colors.to_hex(one.colour).upper() == OWN["c_gap"][0]
    assert matplotlib.colors.to_hex(rigl.colour).upper() == OWN["rigl"][0]
    assert one.marker == two.marker and one.dashes != two.dashes and two.hollow
    grey, _, own = looks(results.rows, {results.rows[2].name}).values()
    assert (own, grey.marker) == (rigl, one.marker)  # a row of no claim is context
    assert matplotlib.colors.to_hex(grey.colour) == "#777777"
    assert len({colour for colour, _ in OWN.values()}) == len(OWN)
    assert len({marker for _, marker in OWN.values()}) == len(OWN)


def test_figures_drawn_after_others_are_those_drawn_alone(tmp_path: Path) -> None:
    found, names = evidence(tmp_path), ("means", "coverage", "accuracy_vs_sparsity")
    in_order = {name: draw(name, found) for name in names}
    assert {name: draw(name, found) for name in reversed(names)} == in_order
    assert draw(names[0], found) == in_order[names[0]]


def test_of_many_panels_some_are_shown_and_it_is_said() -> None:
    made, axes, shown = panels(range(20))
    assert len(axes) == len(shown) == 9 and (shown[0], shown[-1]) == (0, 19)
    assert len(set(shown)) == 9 and shown == sorted(shown)
    assert made.get_suptitle() == "9 of 20 panels; the CSV has all panels"
    made, axes, shown = panels("abc")
    assert shown == ["a", "b", "c"] and made.get_suptitle() == ""


def test_signs_that_no_font_has_are_named_and_others_are_looked_for_in_further_fonts(monkeypatch):
    monkeypatch.setattr(drawing, "FALLBACKS", ())
    assert unshown("C-GaP κ=4 – é\n") == ""
    assert unshown("稀疏 κ 稀") == "疏稀"
    monkeypatch.setattr(drawing, "FALLBACKS", ("STIXGeneral", "no such font"))
    assert drawing.families() == ["STIXGeneral"]


def test_a_label_of_another_script_does_not_disturb_a_figure(tmp_path, recwarn):
    found = evidence(tmp_path, trials=[trial_of()], name="稀疏")
    assert draw("accuracy_vs_sparsity", found) is not None
    assert not [w for w in recwarn if "missing from" in str(w.message)]
