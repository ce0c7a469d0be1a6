"""Reading ablations: what is merged from where, and one line for whatever does not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gapbench.errors import UserError
from gapbench.spec.ablation import read
from gapbench.spec.grid import expand

HEAD = """\
name: partitions
question: Does it matter?
scales:
  smoke: {task: digits, seeds: 1, epochs: 8}
"""
ROW = "trials:\n  - {method: c_gap, sparsity: 0.9, %s}\n"


def written(tmp_path, text, name="partitions.yaml"):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def error_of(tmp_path, text, scale="smoke"):
    with pytest.raises(UserError) as caught:
        expand(read(written(tmp_path, text)), scale)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("partions: 4", "partions: unknown key 'partions': did you mean 'partitions'? valid: "),
        ("partitions: true", "partitions: True is not possible: give a whole number"),
        ("partitions: '4'", "partitions: '4' is not possible: give a whole number"),
        ("partitions: 40", "partitions: 40 is not possible with 9 prunable layers: give 1 to 9"),
        ("partitions: [2, 0]", "partitions: 0 is not possible with 9 prunable layers"),
        ("epochs: -3", "epochs: -3 is not possible: give 1 or more"),
        ("epochs: [8, 0]", "epochs[1]: 0 is not possible: give 1 or more"),
        ("epochs: true", "epochs: True is not possible: give a whole number"),
        ("strategy: cyclc", "strategy: unknown value 'cyclc': did you mean 'cyclic'? valid: "),
        ("task: digts", "task: unknown task 'digts': did you mean 'digits'? valid: "),
        ("task: fashion_mnist, task_options: {sise: 14}", "task_options.sise: unknown key 'sise'"),
        (
            "task: fashion_mnist, task_options: {train_examples: 0}",
            "task_options.train_examples: 0 is not within 1 to 55000",
        ),
        ("recipe: {lrr: 1}", "recipe.lrr: unknown key 'lrr': did you mean 'lr'? valid: "),
        ("recipe: {lr: -1}", "recipe.lr: -1 is not possible: give more than 0"),
        ("recipe: {lr: .nan}", "recipe.lr: nan is not possible: give a finite number"),
        ("recipe: {epochs: 3}", "recipe.epochs: unknown key 'epochs'"),
        ("distribution: unform", "distribution: unknown distribution 'unform': did you mean"),
        ("distribution: dense", "distribution: unknown distribution 'dense': valid: "),
        ("first_layer: dens", "first_layer: unknown value 'dens': did you mean 'dense'? valid: "),
        ("scales: {smoke: {partitons: 3}}", "scales.smoke.partitons: unknown key 'partitons'"),
        ("scales: {smok: {epochs: 3}}", "scales.smok: unknown scale 'smok': did you mean 'smoke'"),
        ("scales: {smoke: null}", "scales.smoke: None is not possible: give what changes"),
        ("zip: {epochs: [8, 9], steps: [4]}", "zip: needs at least one list, and lists of equal"),
        ("zip: {epocs: [8, 9]}", "zip.epocs: unknown key 'epocs': did you mean 'epochs'?"),
        ("zip: {sparsity: [1.5]}", "zip.sparsity[0]: 1.5 is not possible: give a number in [0"),
        ("zip: {epochs: [8, abc]}", "zip.epochs[1]: 'abc' is not possible: give a whole number"),
        ("zip: {epochs: [null]}", "zip.epochs[0]: None is not possible: give a whole number"),
        ("zip: {epochs: [10.7]}", "zip.epochs[0]: 10.7 is not possible: give a whole number"),
        ("zip: {epochs: [true]}", "zip.epochs[0]: True is not possible: give a whole number"),
        ("zip: {task: [3]}", "zip.task[0]: 3 is not possible: give text"),
        ("zip: {distribution: [3]}", "zip.distribution[0]: 3 is not possible: give text"),
        ("zip: {train_flops: [x]}", "zip.train_flops[0]: 'x' is not possible: give a number"),
        ("zip: {seeds: [1, 2]}", "zip.seeds: unknown key 'seeds'"),
        ("zip: {recipe.lr: [0.1, x]}", "zip.recipe.lr: 'x' is not possible: give a number"),
        ("zip: {}", "zip: needs at least one list, and lists of equal length"),
        ("partitions: []", "partitions: [] is not possible: give at least one value"),
        ("recipe: {lr: []}", "recipe.lr: [] is not possible: give at least one value"),
        (
            "recipe: {batch_size: 5000}",
            "recipe.batch_size: 5000 is too large: the 1152 training examples do not fill one",
        ),
        ("recipe: {betas: [2.0, 0.5]}", "recipe.betas: [2.0, 0.5] is not possible: give two num"),
        (
            "recipe: {milestones: [0.7, 0.3]}",
            "recipe.milestones: [0.7, 0.3] is not possible: give increasing fractions between 0",
        ),
        ("epochs: 8, train_flops: 1.0", "train_flops: replaces epochs: give one of the two"),
        ("train_flops: 0.001", "train_flops: 0.001 is too little: the least is 0."),
        (
            "train_flops: 1.0, distribution: global_magnitude",
            "train_flops: the cost under global_magnitude is known only after the run",
        ),
        ("partition_rule: patterns", "partition_rule: task digits has no partition patterns for 4"),
        ("seeds: 0", "seeds: 0 is not possible: give at least one value"),
        ("seeds: [1, -1]", "seeds[1]: -1 is not possible: give 0 or more"),
    ],
)
def test_a_mistake_in_a_row_is_named_with_its_line_and_the_valid_choices(tmp_path, row, expected):
    assert error_of(tmp_path, HEAD + ROW % row).startswith(
        f"partitions.yaml:6: trials[0].{expected}"
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{method: c_gap, sparsity: 1.2}", "sparsity: 1.2 is not possible: give a number in [0"),
        ("{method: c_gap, sparsity: [0.9, 1]}", "sparsity[1]: 1 is not possible: give a number"),
        ("{method: c_gap, sparsity: -0.1}", "sparsity: -0.1 is not possible: give a number in"),
        ("{method: c_gap, sparsity: .nan}", "sparsity: nan is not possible: give a finite number"),
        ("{method: c_gap, sparsity: []}", "sparsity: [] is not possible: give at least one value"),
        ("{method: c_gap}", "sparsity: is missing: give a number in [0, 1)"),
        ("{sparsity: 0.9}", "method: is missing"),
        ("{method: rigll}", "method: unknown method 'rigll': did you mean 'rigl'? valid: ac_dc, "),
        ("{method: [rigl, c_gap], partitions: 4}", "partitions: unknown key 'partitions': valid"),
        ("{method: dense, sparsity: 0.9}", "sparsity: method dense prunes nothing: remove it"),
    ],
)
def test_a_mistake_in_what_every_row_needs_is_named_too(tmp_path, row, expected):
    text = f"{HEAD}trials:\n  - {row}\n"
    assert error_of(tmp_path, text).startswith(f"partitions.yaml:6: trials[0].{expected}")


@pytest.mark.parametrize("method", ["rigl", "set", "static"])
def test_global_magnitude_is_refused_where_nothing_is_pruned_by_magnitude(tmp_path, method):
    row = f"{{method: {method}, sparsity: 0.9, distribution: global_magnitude}}"
    assert error_of(tmp_path, f"{HEAD}trials:\n  - {row}\n") == (
        "partitions.yaml:6: trials[0].distribution: global_magnitude needs a method that prunes "
        f"by magnitude, {method} never does: valid: erk, uniform"
    )


def test_a_sparsity_that_the_floors_of_global_magnitude_forbid_is_refused_with_the_layers(tmp_path):
    row = "{method: c_gap, sparsity: 0.98, distribution: global_magnitude}"
    error = error_of(tmp_path, f"{HEAD}trials:\n  - {row}\n")
    assert error.startswith("partitions.yaml:6: trials[0].sparsity: 0.98 is out of reach under")
    assert "weight, pruned together, would keep " in error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trails: []\n", "5: trails: unknown key 'trails': did you mean 'trials'? valid: base, "),
        ("trials: []\n", "5: trials: no trial here or in an included file"),
        ("trials: {method: c_gap}\n", "5: trials: {'method': 'c_gap'} is not possible: give a l"),
        ("trials:\n  - c_gap\n", "6: trials[0]: 'c_gap' is not possible: give a mapping of keys"),
        ("report: {row: x}\n", "5: report.row: unknown key 'row': did you mean 'rows'? valid: "),
        ("claims: [{asks: x}]\n", "5: claims[0].better: is missing"),
        ("include: [none.yaml]\n", "5: include[0]: 'none.yaml' is not a file (looked for "),
        ("include: [.]\n", "5: include[0]: '.' is not a file"),
        ("include: [{fil: x}]\n", "5: include[0].file: is missing"),
        ("base: none.yaml\n" + ROW % "steps: 4", "5: base: 'none.yaml' is not a file"),
    ],
)
def test_a_mistake_outside_of_rows_is_named_with_its_line(tmp_path, text, expected):
    assert error_of(tmp_path, HEAD + text).startswith(f"partitions.yaml:{expected}")


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ("{smoke: {task: digits, epoch: 8}}", "smoke.epoch: unknown key 'epoch': did you mean"),
        ("{smoke: {task: digits, steps: 4}}", "smoke.steps: unknown key 'steps'"),
        ("{smoke: {recipe: {lrr: 1}}}", "smoke.recipe.lrr: unknown key 'lrr'"),
        ("{smoke: {methods: {cgap: {}}}}", "smoke.methods.cgap: unknown method 'cgap'"),
        ("{smoke: {methods: {c_gap: {step: 1}}}}", "smoke.methods.c_gap.step: unknown key 'step'"),
    ],
)
def test_a_mistake_in_a_scale_is_named_with_its_line(tmp_path, scales, expected):
    text = f"name: x\nquestion: q\nscales: {scales}\n" + ROW % "partitions: 2"
    assert error_of(tmp_path, text).startswith(f"partitions.yaml:3: scales.{expected}")


def test_a_row_without_a_task_lists_the_tasks(tmp_path):
    text = "name: x\nquestion: q\nscales: {smoke: {epochs: 8}}\n" + ROW % "partitions: 2"
    error = error_of(tmp_path, text)
    assert error.startswith("partitions.yaml:5: trials[0].task: is missing: valid: cifar10, ")


def test_a_scale_that_the_ablation_does_not_have_is_refused(tmp_path):
    error = error_of(tmp_path, HEAD + ROW % "partitions: 2", scale="smke")
    assert error == "partitions.yaml: unknown scale 'smke': did you mean 'smoke'? valid: smoke"


def test_a_mistake_in_a_scale_that_is_not_asked_for_is_found_all_the_same(tmp_path):
    row = "scales: {paper: {partitons: 3}}"
    head = HEAD + "  paper: {task: digits}\n"
    assert "trials[0].scales.paper.partitons" in error_of(tmp_path, head + ROW % row)


def test_included_rows_come_first_and_take_the_scales_of_the_file_that_includes(tmp_path):
    inner = HEAD.replace("epochs: 8", "epochs: 99") + "trials: [{method: dense}]\n"
    written(tmp_path, inner, "rows/dense.yaml")
    outer = HEAD + "include: [../rows/dense.yaml]\n" + ROW % "partitions: 2"
    entries = expand(read(written(tmp_path, outer, "ablations/x.yaml")), "smoke")
    assert [(e.trial.method, e.trial.plan.epochs) for e in entries] == [("dense", 8), ("c_gap", 8)]


def test_a_mistake_in_an_included_file_names_that_file(tmp_path):
    written(tmp_path, HEAD + "trials: [{method: dense, epochs: 0}]\n", "dense.yaml")
    error = error_of(tmp_path, HEAD + "include: [dense.yaml]\n")
    assert error == "dense.yaml:5: trials[0].epochs: 0 is not possible: give 1 or more"


def test_includes_go_one_level_deep(tmp_path):
    written(tmp_path, HEAD + "trials: [{method: dense}]\n", "dense.yaml")
    written(tmp_path, HEAD + "include: [dense.yaml]\n", "middle.yaml")
    error = error_of(tmp_path, HEAD + "include: [middle.yaml]\n")
    assert error == "middle.yaml:5: include: an included file cannot include another file"


def test_an_include_may_pick_some_rows(tmp_path):
    rows = "trials: [{method: rigl, sparsity: 0.9, epochs: [1x, 5x, 12x]}]\n"
    written(tmp_path, HEAD + rows, "rigl.yaml")
    outer = HEAD + "include: [{file: rigl.yaml, only: ['epochs=1x,12x']}]\n"
    entries = expand(read(written(tmp_path, outer)), "smoke")
    assert [entry.name for entry in entries] == ["RigL", "RigL 12x"]


def test_an_include_that_picks_by_an_unknown_setting_is_refused(tmp_path):
    written(tmp_path, HEAD + "trials: [{method: rigl, sparsity: 0.9}]\n", "rigl.yaml")
    outer = HEAD + "include: [{file: rigl.yaml, only: [epoch=5]}]\n"
    error = error_of(tmp_path, outer)
    assert "include: only: unknown setting 'epoch': did you mean 'epochs'?" in error


def test_a_base_gives_scales_and_the_file_goes_before_it(tmp_path):
    base = "scales:\n  smoke: {task: digits, epochs: 8, sparsity: 0.5}\n  paper: {task: imagenet}\n"
    written(tmp_path, base, "scales.yaml")
    head = "name: x\nquestion: q\nbase: scales.yaml\n"
    rows = "trials: [{method: static}]\n"
    everything = read(written(tmp_path, head + rows))
    assert list(everything.scales) == ["smoke", "paper"]
    some = read(written(tmp_path, f"{head}scales: {{smoke: {{sparsity: 0.9}}}}\n{rows}"))
    assert list(some.scales) == ["smoke"]
    trial = expand(some, "smoke")[0].trial
    assert (trial.sparsity, trial.plan.epochs) == (0.9, 8)


def test_a_bare_name_is_an_ablation_of_this_folder_or_one_that_comes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read(Path("partitions")).name == "partitions"
    (tmp_path / "ablations").mkdir()
    rows = "trials: [{method: static, task: digits, sparsity: 0.9}]\n"
    mine = f"name: mine\nquestion: why?\nscales: {{smoke: }}\n{rows}"
    (tmp_path / "ablations" / "partitions.yaml").write_text(mine)
    assert read(Path("partitions")).name == "mine"
    for given in ("partition", "./nowhere/partitions", "partitions.yml"):
        with pytest.raises(UserError, match=re.escape(str(Path(given)))):
            read(Path(given))
