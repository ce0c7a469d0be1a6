"""ResNet-50 on real JPEG files: every kind of plan, two ranks, and killed in the middle."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from gapbench.execution.sacred_run import run_attempt
from gapbench.execution.trial_run import Execution, run_trial
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.spec.trials import Trial
from tests.children import free_port, in_child
from tests.jpegs import plant, truncate
from tests.runs import assert_equal, attempt, prepared

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
SMALL = f"""
name: small
question: does it train?
base: {ROOT}/scales.yaml
scales:
  paper:
    task_options: {{image_size: 32, classes: 4, train_examples: 32, validation: 8}}
    recipe: {{batch_size: 8, lr: 0.008, warmup_epochs: 0.5}}
    sparsity: 0.9
"""
ROWS = {  # 4 steps an epoch; partitions by stage, as the paper's scale has it
    "c_gap": "{method: c_gap, epochs: 6, step_epochs: 1, steps: 4}",
    "c_gap, short": "{method: c_gap, epochs: 2, step_epochs: 1, steps: 1}",
    "rigl": "{method: rigl, distribution: erk, epochs: 3, every: 4}",
    "rigl, short": "{method: rigl, distribution: erk, epochs: 1, every: 2}",
    "dense": "{method: dense, epochs: 2}",
}


@pytest.fixture(scope="module", autouse=True)
def _data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    plant(root / "imagenet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPBENCH_DATA", str(root))
        patch.setenv("GAPBENCH_WORKERS", "0")
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))  # its marks of readable trees
        yield


def folder_of(place, row, ranks=1):
    """Write the run folder of a row; the task asks for eight GPUs, and so for as many ranks."""
    file = place / "small.yaml"
    file.write_text(f"{SMALL}trials: [{ROWS[row]}]\n")
    return prepared(place, expanded(file, "paper", (f"recipe.ranks={ranks}",), (), "1")[2][0])


@pytest.fixture
def place(tmp_path):
    """A folder that is gone after the test: a run's files are of some hundred megabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def c_gap(tmp_path_factory):
    """A completed, undisturbed C-GaP trial."""
    place = tmp_path_factory.mktemp("undisturbed")
    folder = folder_of(place, "c_gap")
    assert attempt(folder) == "completed"
    yield folder
    shutil.rmtree(place)


def lines_of(folder, kind):
    lines = [json.loads(line) for line in folder.history.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def check(folder, epochs):
    losses = [line["train/loss"] for line in lines_of(folder, "epoch")]
    assert len(losses) == epochs
    assert all(math.isfinite(loss) for loss in losses)
    metrics = folder.read_result()["metrics"]
    assert 0 <= metrics["test/accuracy"] <= 100


def test_c_gap_grows_the_papers_stages_one_after_another(c_gap):
    check(c_gap, 6)
    grown = [line["layers"] for line in lines_of(c_gap, "change") if line["event"] == "grow"]
    assert [len(layers) for layers in grown] == [10, 13, 19, 11]  # the first layer stays dense
    result = c_gap.read_result()
    assert result["exploration"]["coverage"] == 1.0
    assert result["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize(("method", "epochs"), [("rigl", 3), ("dense", 2)])
def test_the_other_rows_train(place, method, epochs):
    folder = folder_of(place, method)
    assert attempt(folder) == "completed"
    check(folder, epochs)
    if method == "rigl":
        assert [c["event"] for c in lines_of(folder, "change")].count("update") == 2
        assert folder.read_result()["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-4)


def test_killed_in_the_middle_it_ends_bitwise_the_same(c_gap, place):
    folder = folder_of(place, "c_gap")
    child = in_child(run_attempt, folder.path, "tests", Execution(1, 0.5))
    while not folder.history.exists() or len(lines_of(folder, "change")) < 3:
        time.sleep(0.02)
        assert child.is_alive()
    time.sleep(0.8)
    assert folder.checkpoint.exists()
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert folder.state() == "lost"
    assert attempt(folder) == "completed"
    assert_equal(folder, c_gap)


def _rank(rank: int, world: int, path: Path, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    trial = Trial.read(path / "trial.json")
    run_trial(RunFolder(path), trial, Execution(1, 60.0), lambda: False, lambda *_: None)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("row", "epochs"), [("c_gap, short", 2), ("rigl, short", 1)])
def test_two_ranks_train_one_model(place, row, epochs):
    folder = folder_of(place, row, ranks=2)
    port = free_port()
    ranks = [in_child(_rank, rank, 2, folder.path, port) for rank in range(2)]
    for rank in ranks:
        rank.join(150)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    check(folder, epochs)
    assert folder.read_result()["ranks"] == 2


def test_a_bad_file_fails_the_trial_by_its_path(place, monkeypatch):
    file = truncate(plant(place / "imagenet") / "train" / "n04" / "n04_7.JPEG")
    monkeypatch.setenv("GAPBENCH_DATA", str(place))
    folder = folder_of(place, "dense")
    assert attempt(folder) == "failed"
    error = json.loads(folder.status.read_text())["error"]
    assert error.startswith(f"{file}: cannot be decoded: image file is truncated")
    assert not folder.completed()
