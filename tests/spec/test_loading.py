from __future__ import annotations

import pytest

from gapbench.errors import UserError
from gapbench.spec.loading import load, read_seeds, read_set


def written(tmp_path, text):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    return file


def test_values_are_read_as_yaml_1_2(tmp_path):
    text = "a: 1e-3\nb: 10:30\nc: no\nd: 010\ne: [true, null]\n"
    document = load(written(tmp_path, text))
    assert document.data == {"a": 1e-3, "b": "10:30", "c": "no", "d": 10, "e": [True, None]}


def test_every_key_and_item_knows_its_line(tmp_path):
    text = "# comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 1,\n       e: 2}\n"
    lines = load(written(tmp_path, text)).lines
    assert lines[("a",)] == 2
    assert lines[("a", "b")] == 3
    assert lines[("a", "c", 0)] == 5
    assert lines[("a", "c", 1, "d")] == 6
    assert lines[("a", "c", 1, "e")] == 7


def test_a_problem_names_file_line_and_key(tmp_path):
    file = written(tmp_path, "trials:\n  - method: x\n    recipe: {lr: 1}\n")
    error = load(file).problem(("trials", 0, "recipe", "lr"), "too much")
    assert str(error) == f"{file}:3: trials[0].recipe.lr: too much"


def test_a_problem_with_an_absent_key_points_to_where_it_belongs(tmp_path):
    file = written(tmp_path, "a: 1\ntrials:\n  - method: x\n")
    error = load(file).problem(("trials", 0, "sparsity"), "is missing")
    assert str(error) == f"{file}:3: trials[0].sparsity: is missing"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2\n", 2),
        ("a: [1\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: !!python/object:os.system x\n", 1),
        ("a:\n\t- b\n", 2),
        ("a: 1\nb: !!int ''\n", 2),
        ("a: 1\nb: [&x 1, !!bool maybe]\n", 2),
        ("a: 2026-13-45\n", 1),
    ],
)
def test_broken_yaml_is_one_line_with_the_place(tmp_path, text, line):
    file = written(tmp_path, text)
    with pytest.raises(UserError, match=f"^{file}:{line}: broken YAML: [^\n]+$"):
        load(file)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "words\n"])
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(UserError, match=r"^[^\n]*x\.yaml[^\n]+$"):
        load(written(tmp_path, text))


def test_a_missing_file_a_folder_and_a_binary_are_refused_in_one_line(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(UserError, match=f"^{file}: cannot be read: [^\n]+$"):
            load(file)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("0-4", (0, 1, 2, 3, 4)), ("0,3", (0, 3)), ("0-2,2,7", (0, 1, 2, 7))],
)
def test_seeds_are_a_number_a_range_or_a_list(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "4-2", "x", "1-2-3", "", "2,", "1.5"])
def test_other_seeds_are_refused(text):
    with pytest.raises(UserError, match=r"--seeds: .* is not valid: give a count"):
        read_seeds(text)


@pytest.mark.parametrize("text", ["10001", "0-999999999999", "9" * 30, "0-1,5-" + "9" * 30])
def test_more_seeds_than_can_be_meant_are_refused_before_they_are_counted_out(text):
    with pytest.raises(UserError, match=rf"--seeds: '{text}' means .* give at most 10,000"):
        read_seeds(text)


def test_set_reads_values_as_yaml(tmp_path):
    document = read_set(["recipe.lr=1e-3", "epochs=[2, 4]", "strategy=random", "steps=null"])
    assert document.data == {
        "recipe.lr": 1e-3,
        "epochs": [2, 4],
        "strategy": "random",
        "steps": None,
    }


@pytest.mark.parametrize("words", [["x"], ["=3"], ["a=["], ["a=1", "a=2"]])
def test_a_set_that_is_no_key_and_value_is_refused(words):
    with pytest.raises(UserError, match=r"^--set: [^\n]+$"):
        read_set(words)
