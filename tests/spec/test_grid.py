from __future__ import annotations

import re
import time

import pytest

from gapbench.errors import NotInstalled, UserError
from gapbench.spec.ablation import read
from gapbench.spec.dry_run import dry_run
from gapbench.spec.grid import expand
from gapbench.spec.loading import read_set
from gapbench.tasks.digits import Digits
from gapbench.tasks.task import task, tasks

HEAD = """\
name: grid
question: q
scales:
  smoke:
    {task: digits, seeds: 2, epochs: 8, sparsity: 0.9, methods: {c_gap: {steps: 4, epochs: 6}}}
  mini: {task: fashion_mnist, epochs: 60, sparsity: 0.9}
trials:
"""


def grid(tmp_path, *rows, scale="smoke", sets=(), **picks):
    file = tmp_path / "grid.yaml"
    file.write_text(HEAD + "".join(f"  - {row}\n" for row in rows))
    overrides = read_set(sets) if sets else None
    return expand(read(file), scale, overrides=overrides, **picks)


def values(entries, *fields):
    return [tuple(entry.fields()[field] for field in fields) for entry in entries]


def test_lists_are_products_and_every_point_has_all_seeds(tmp_path):
    found = grid(tmp_path, "{method: c_gap, partitions: [1, 2], sparsity: [0.5, 0.9]}")
    expected = [(p, s, seed) for s in (0.5, 0.9) for p in (1, 2) for seed in (0, 1)]
    assert sorted(values(found, "sparsity", "partitions", "seed")) == sorted(
        (s, p, seed) for p, s, seed in expected
    )


def test_lists_under_zip_move_together(tmp_path):
    row = "{method: c_gap, seeds: 1, restart: [true, false], zip: {epochs: [6, 9], steps: [4, 8]}}"
    found = values(grid(tmp_path, row), "epochs", "steps", "restart")
    assert sorted(found) == [(6, 4, False), (6, 4, True), (9, 8, False), (9, 8, True)]


def test_a_methods_defaults_go_before_the_scales_and_the_row_before_both(tmp_path):
    plain = grid(tmp_path, "{method: [c_gap, static], seeds: 1}")
    assert values(plain, "method", "epochs") == [("c_gap", 6), ("static", 8)]
    own = grid(tmp_path, "{method: c_gap, seeds: 1, epochs: 7}")
    assert values(own, "epochs", "steps") == [(7, 4)]


def test_a_rows_scale_goes_before_the_row_and_false_leaves_it_out(tmp_path):
    rows = (
        "{method: static, seeds: 1, epochs: 5, scales: {smoke: {epochs: 3}}}",
        "{method: set, seeds: 1, scales: {smoke: false}}",
    )
    assert values(grid(tmp_path, *rows), "method", "epochs") == [("static", 3)]
    assert len(grid(tmp_path, *rows, scale="mini")) == 2


def test_set_goes_before_everything(tmp_path):
    row = "{method: c_gap, partitions: [1, 2], scales: {smoke: {epochs: 7}}}"
    sets = ["epochs=9", "recipe.lr=0.05", "partitions=[2, 3]", "steps=null"]
    found = values(grid(tmp_path, row, sets=sets), "epochs", "recipe.lr", "partitions", "steps")
    assert set(found) == {(9, 0.05, 2, None), (9, 0.05, 3, None)}


def test_set_leaves_dense_training_and_other_methods_options_alone(tmp_path):
    rows = ("{method: dense, seeds: 1}", "{method: c_gap, seeds: 1}")
    found = grid(tmp_path, *rows, sets=["sparsity=0.5", "distribution=erk", "partitions=2"])
    assert values(found, "method", "sparsity") == [("dense", 0.0), ("c_gap", 0.5)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("partions=3", "--set: unknown key 'partions': did you mean 'partitions'? valid: "),
        ("multiple=3", "--set: unknown key 'multiple'"),
        ("recipe.lrr=3", "--set: unknown key 'recipe.lrr': did you mean 'recipe.lr'?"),
        ("sparsity=1.2", "--set: sparsity: 1.2 is not possible: give a number in [0, 1)"),
        ("epochs=true", "--set: epochs: True is not possible: give a whole number"),
        ("recipe.lr=-1", "--set: recipe.lr: -1 is not possible"),
        ("task_options.size=3", "--set: task_options.size: unknown key 'size'"),
        ("partitions=77", "--set: partitions: 77 is not possible with 9 prunable layers"),
    ],
)
def test_a_mistake_in_set_is_named(tmp_path, words, expected):
    with pytest.raises(UserError) as caught:
        grid(tmp_path, "{method: c_gap}", sets=[words])
    assert str(caught.value).startswith(expected)


def test_a_trial_that_two_rows_share_is_there_once(tmp_path):
    rows = ("{method: c_gap, partitions: [1, 4]}", "{method: c_gap, strategy: [cyclic, random]}")
    found = grid(tmp_path, *rows)
    keys = [entry.trial.key for entry in found]
    assert len(keys) == len(set(keys)) == 3 * 2


def test_defaults_written_out_are_the_same_trial(tmp_path):
    short = grid(tmp_path, "{method: c_gap}")
    full = "{method: c_gap, partitions: 4, strategy: cyclic, recipe: {lr: 0.1}, first_layer: dense}"
    assert [e.trial for e in grid(tmp_path, full)] == [e.trial for e in short]


def test_the_input_layer_is_dense_in_uniform_rows_alone(tmp_path):
    row = "{method: c_gap, seeds: 1, distribution: [uniform, erk, global_magnitude]}"
    assert values(grid(tmp_path, row), "distribution", "first_layer") == [
        ("uniform", "dense"),
        ("erk", "sparse"),
        ("global_magnitude", "sparse"),
    ]


def test_dense_training_has_one_trial_whatever_the_sparsities(tmp_path):
    found = grid(tmp_path, "{method: dense}", sets=["sparsity=[0.5, 0.9]"], seeds=(0,))
    assert values(found, "sparsity", "distribution") == [(0.0, "dense")]


def test_epochs_are_the_tasks_own_where_nobody_gives_them(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\nquestion: q\nscales: {smoke: {task: digits}}\ntrials: [{method: dense}]"
    )
    trial = expand(read(file), "smoke")[0].trial
    assert trial.plan.epochs == trial.recipe.epochs
    assert trial.seed == 0


def test_an_option_that_takes_lists_is_one_value(tmp_path):
    row = (
        "{method: c_gap, seeds: 1, partitions: 2, partition_rule: patterns, "
        "patterns: [['layer1*', 'layer2*'], ['layer3*', 'fc*']]}"
    )
    found = grid(tmp_path, row)
    assert values(found, "patterns") == [((("layer1*", "layer2*"), ("layer3*", "fc*")),)]
    groups = {segment.phase.grow for segment in found[0].trial.plan.segments[:4]}
    assert len(groups) == 2


def test_the_tasks_own_partitions_stand_in_the_trial(tmp_path):
    row = "{method: c_gap, task: imagenet, epochs: 990, partition_rule: patterns, seeds: 1}"
    patterns = grid(tmp_path, row)[0].trial.options["patterns"]
    assert len(patterns) == 4
    assert "layer2.*" in patterns[1]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("static", {"static"}),
        ("rigl,static", {"rigl", "static"}),
        ("RigL 5x", {"rigl"}),
        ("c*", {"c_gap"}),
        ("sparsity=0.5", {"rigl"}),
        ("partitions=1,4", {"c_gap"}),
        ("partitions=1,none", {"static", "rigl"}),
        ("seed=0", {"static", "rigl", "c_gap"}),
    ],
)
def test_only_picks_by_method_name_or_setting(tmp_path, pattern, expected):
    rows = (
        "{method: static}",
        "{method: rigl, epochs: 5x, sparsity: 0.5}",
        "{method: c_gap, partitions: 4}",
    )
    assert {e.trial.method for e in grid(tmp_path, *rows, only=[pattern])} == expected


def test_trials_match_all_patterns_of_only(tmp_path):
    found = grid(
        tmp_path, "{method: [static, set], sparsity: [0.5, 0.9]}", only=["set", "sparsity=0.5"]
    )
    assert set(values(found, "method", "sparsity")) == {("set", 0.5)}


def test_an_only_that_matches_nothing_names_the_rows(tmp_path):
    words = r"no trial matches --only rigl at scale smoke: rows: Stat.*; tasks: digits"
    with pytest.raises(UserError, match=words):
        grid(tmp_path, "{method: static}", only=["rigl"])
    with pytest.raises(UserError, match="--only: unknown setting 'epoch': did you mean 'epochs'"):
        grid(tmp_path, "{method: static}", only=["epoch=3"])


def test_a_word_of_only_that_matches_nothing_is_named(tmp_path):
    with pytest.raises(UserError, match="no trial matches --only rigll at scale smoke: rows: "):
        grid(tmp_path, "{method: [static, rigl]}", only=["static,rigll"])


def test_seeds_of_the_command_replace_those_of_the_file(tmp_path):
    assert values(grid(tmp_path, "{method: static}", seeds=(3, 7)), "seed") == [(3,), (7,)]


def test_labels_tell_all_trials_apart(tmp_path):
    rows = (
        "{method: c_gap, partitions: [1, 2], restart: [true, false], sparsity: [0.5, 0.9]}",
        "{method: rigl, epochs: [1x, 5x], task: [digits, fashion_mnist]}",
        "{method: dense, label: Reference}",
    )
    labels = [entry.label for entry in grid(tmp_path, *rows)]
    assert len(labels) == len(set(labels))
    assert "C-GaP uniform 0.5 partitions=1 restart=True seed 0" in labels
    assert "RigL 5x uniform 0.9 fashion_mnist seed 1" in labels
    assert "Reference seed 0" in labels


def test_equal_flops_are_resolved_to_the_nearest_epochs(tmp_path):
    for method in ("dense", "static", "rigl", "prune_from_dense", "gradual"):
        row = f"{{method: {method}, task: fashion_mnist, seeds: 1, %s}}"
        epochs = grid(tmp_path, row % "train_flops: 0.5")[0].trial.plan.epochs
        around = grid(tmp_path, row % f"epochs: [{epochs - 1}, {epochs}, {epochs + 1}]")
        before, here, after = (o.train_flops_ratio - 0.5 for o in dry_run(around))
        assert before < 0 < after
        assert abs(here) <= min(-before, after)


def test_ten_thousand_trials_are_expanded_in_seconds(tmp_path):
    tenths = [n / 100 for n in range(50, 100)]
    row = f"{{method: c_gap, partitions: [1, 2, 3, 4], sparsity: {tenths}, epochs: [8, 9, 10, 11]}}"
    grid(tmp_path, "{method: static}")  # torch is loaded, the model built
    began = time.process_time()
    found = grid(tmp_path, row, seeds=range(13))
    assert len(found) == 10_400
    assert time.process_time() - began < 10


@pytest.fixture
def needy():
    """A plug-in's task that needs a package which is not installed."""

    class Needy(Digits):
        @classmethod
        def require(cls):
            raise NotInstalled("a package is not installed; get it by: spell")

    task("needy", version=1)(Needy)
    yield
    tasks._entries.pop("needy")


def test_who_asks_for_a_task_that_needs_a_missing_package_is_told(tmp_path, needy):
    with pytest.raises(NotInstalled, match="get it by: spell"):
        grid(tmp_path, "{method: dense}", "{method: dense, task: needy}")


SCALED = """\
name: scaled
question: q
base: base.yaml
scales: %s
trials: [{method: static, scales: %s}]
"""


def scaled(tmp_path, scales, row="{}"):
    (tmp_path / "base.yaml").write_text(
        "scales: {tiny: {task: digits, epochs: 8, sparsity: 0.9, seeds: 1}, other: }\n"
    )
    file = tmp_path / "scaled.yaml"
    file.write_text(SCALED % (scales, row))
    return read(file)


def test_scales_have_any_names_in_the_order_of_their_file(tmp_path):
    found = scaled(tmp_path, "{zebra: {task: digits, epochs: 3, sparsity: 0.5}, tiny: }")
    assert list(found.scales) == ["zebra", "tiny"]
    assert values(expand(found, "tiny"), "epochs", "sparsity") == [(8, 0.9)]
    assert values(expand(found, "zebra", seeds=(0,)), "epochs", "sparsity") == [(3, 0.5)]


@pytest.mark.parametrize(
    ("scales", "row", "message"),
    [
        ("{tinny: }", "{}", "scaled.yaml:4: scales.tinny: unknown scale 'tinny': did you mean "),
        ("{tiny: }", "{tinny: {sparsity: 0.5}}", "trials[0].scales.tinny: unknown scale 'tinny'"),
        ("{runs: {task: digits}}", "{}", "'runs' is not possible: runs is a folder of results"),
        ("{Tiny: {task: digits}}", "{}", "'Tiny' is not possible: give lower-case letters"),
    ],
)
def test_a_scale_that_is_none_is_refused(tmp_path, scales, row, message):
    with pytest.raises(UserError, match=re.escape(message)):
        scaled(tmp_path, scales, row)


@pytest.mark.parametrize("count", ["0", "-1", "{a: 1}", "[null]", "true"])
def test_a_number_of_partitions_that_is_none_is_refused_before_the_task_is_asked(
    tmp_path, count, fairseq
):
    row = f"{{method: c_gap, task: docs_en_de, partition_rule: patterns, partitions: {count}}}"
    with pytest.raises(UserError, match=r"trials\[0\]\.partitions: [^\n]* is not possible"):
        grid(tmp_path, row)
