"""Claims that are counted from plans, against numbers of the slides and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.evaluation import evaluate
from gapbench.report.counted import counted_grid, explored_grid
from tests.report.folders import entry_of, spec_of, trial_of, write_result
from tests.runs import ABLATIONS


@pytest.fixture(scope="module")
def counted() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ABLATIONS.parent)
        return {line[0].text: line[1].text for line in counted_grid().body}


def test_lengths_are_those_of_the_slides(counted: dict[str, str]) -> None:
    told = counted["How long is grow-and-prune?"]
    assert told == "C-GaP 990 epochs; P-GaP 1110 machine-epochs, 390 wall-clock epochs"


def test_a_dense_partition_of_four_makes_the_mean_density(counted: dict[str, str]) -> None:
    """28 steps of 30 epochs of 990 have a stage of ResNet-50 dense, seven times each."""
    told = counted["Does a step of C-GaP cost more than a step of RigL at equal sparsity?"]
    gap, rigl = (float(word.strip(",")) for word in told.split() if word[0] == "0")
    # a stage in turn adds a quarter of the nine tenths that are zero, on average over the weights
    assert gap == pytest.approx(0.1 + 0.9 / 4 * 840 / 990, abs=0.001) and rigl == 0.1


def test_cyclic_growth_has_seen_all_weights_after_a_round(counted: dict[str, str]) -> None:
    told = counted[
        "Does cyclic growth explore all weights, and three times faster than random growth?"
    ]
    assert told.startswith("cyclic growth explores 99 % of the weights in 4 steps; random growth ")
    assert told.endswith("(7 to 15), 2.3 times as many")


def test_what_workers_send_is_the_entropy_of_sparse_weights(counted: dict[str, str]) -> None:
    told = counted["Does P-GaP need little communication?"]
    parameters, prunable, density = 25_557_032, 25_502_912, 0.1
    bits = -(density * math.log2(density) + 0.9 * math.log2(0.9))
    sparse = 4 * (parameters - 0.9 * prunable) + prunable * bits / 8
    steps = 30 * (1_281_167 - 10_000) // 2048  # 10,000 images validate
    reduced = 2 * 3 * 4 * parameters * steps
    assert f"{5 * sparse / 1e6:.0f} MB" in told and f"{reduced / 1e12:.1f} TB" in told


def test_machines_and_batches_are_counted(counted: dict[str, str]) -> None:
    told = counted["Does P-GaP do without large batches?"]
    assert "4 machines train 1110 epochs in the time of 390 at batch size 2,048" in told
    assert told.endswith("batch size 8,192")


def test_how_far_masks_moved_stands_beside_random_masks(tmp_path: Path) -> None:
    entries = []
    for method, iou in (("c_gap", 0.5), ("static", None)):
        trial = trial_of(method)
        entries.append(entry_of(trial))
        folder = write_result(tmp_path, trial, 80.0)
        assert folder.is_dir()
        if iou is not None:
            path = folder / "result.json"
            text = path.read_text()
            path.write_text(text.replace('"coverage": ', f'"iou": {iou}, "coverage": ', 1))
    evaluation = evaluate(runs_frame(entries, scan(tmp_path)), spec_of(rows=["label"]))
    (line,) = explored_grid([evaluation], "mini").body
    told = [text.text for text in line]
    # two random masks of density .1: .01 of .19
    assert told == ["C-GaP (partitions, fashion_mnist)", "0.9", "0.995", "–", "0.5", "0.053"]
