from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_steps
from benchmarks.gpu_changes import changes
from benchmarks.models import resnet20


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_there_is_one_line_and_exit_code_two(tmp_path, capsys):
    assert gpu_steps.main(["--page", str(tmp_path / "gpu.md")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "needs a CUDA GPU" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["--batch", "0"], ["--steps", "-1"], ["--rounds", "x"], ["--modes", "x"]]
)
def test_arguments_that_cannot_be_are_refused(words):
    with pytest.raises(SystemExit, match="2"):
        gpu_steps.main(words)


def test_a_line_compares_masked_steps_with_dense_ones(monkeypatch):
    monkeypatch.setitem(gpu_steps.MODELS, "ResNet-20", (resnet20, 8))
    line = gpu_steps.compared("eager", torch.device("cpu"), 2, 1, 2, "ResNet-20")
    assert tuple(line) == gpu_steps.COLUMNS
    assert line["setting"] == "ResNet-20, eager"
    assert line["dense images/s"] > 0 and line["masked images/s"] > 0 and line["time ratio"] > 0
    assert line["dense GB"] is None  # counted on GPUs only


def test_changes_of_masks_have_a_line_each():
    update, prune = changes("ResNet-20", torch.device("cpu"), 2)
    assert (update["change"], prune["change"]) == (
        "ResNet-20, RigL update",
        "ResNet-20, prune, uniform",
    )
    assert update["ms"] > 0 and prune["ms"] > 0
    assert update["kernels"] is update["ms of kernels"] is None


def test_the_page_says_where_and_how_and_leaves_out_what_was_not_measured():
    lines = [
        dict(zip(gpu_steps.COLUMNS, ("eager", 2512.4, 2498.6, 1.0055, 11.5, 11.55), strict=True)),
        {"setting": "2 masked", "masked images/s": 4990.0},
    ]
    moved = [{"change": "RigL update", "ms": 10.4, "ms of kernels": 2.7}]
    text = gpu_steps.page({"machine": "2 x GPU", "command": "`python`"}, lines, moved)
    assert text.splitlines() == [
        "# Training steps on a GPU",
        "",
        "- machine: 2 x GPU",
        "- command: `python`",
        "",
        "| setting | dense images/s | masked images/s | time ratio | dense GB | masked GB |",
        "| --- | --- | --- | --- | --- | --- |",
        "| eager | 2512 | 2499 | 1.006 | 11.500 | 11.550 |",
        "| 2 masked |  | 4990 |  |  |  |",
        "",
        "| change | ms | ms of kernels |",
        "| --- | --- | --- |",
        "| RigL update | 10.400 | 2.700 |",
    ]
