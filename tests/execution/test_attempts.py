"""Attempts of real trials: killed, stopped, side by side, and failing loudly."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gapbench.base.documents import read_json
from gapbench.errors import UserError
from gapbench.execution.branches import branch_folder
from gapbench.execution.sacred_run import run_attempt
from gapbench.execution.trial_run import Execution, run_trial
from gapbench.launch.jobs import Attempt
from gapbench.runs.store import RunFolder
from gapbench.spec.trials import Trial
from gapbench.study import job_of
from tests.children import free_port, in_child
from tests.runs import assert_equal, attempt, entry, prepared
from tests.slurm.cluster import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def c_gap(tmp_path_factory):
    """A completed, undisturbed C-GaP trial."""
    chosen = entry("partitions", "epochs=12", only="partitions=2")
    folder = prepared(tmp_path_factory.mktemp("undisturbed"), chosen)
    assert attempt(folder) == "completed"
    return chosen, folder


def test_a_trial_killed_at_twenty_random_moments_ends_bitwise_the_same(c_gap, tmp_path):
    chosen, undisturbed = c_gap
    folder = prepared(tmp_path, chosen)
    rng = random.Random(7)
    kills = 0
    while kills < 20:
        child = in_child(run_attempt, folder.path, "tests", Execution(1, 0.02))
        time.sleep(rng.uniform(0.1, 0.7))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
        if folder.completed():  # it outran us: begin anew, so that all kills hit a live run
            assert_equal(folder, undisturbed)
            folder = prepared(tmp_path / str(kills), chosen)
        else:
            assert folder.state() in ("lost", "planned")
    assert attempt(folder) == "completed"
    assert_equal(folder, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_ends_an_attempt_at_a_safe_point_and_the_next_goes_on(c_gap, tmp_path, number):
    chosen, undisturbed = c_gap
    folder = prepared(tmp_path, chosen)
    child = in_child(run_attempt, folder.path, "tests", Execution(1, 60.0))
    while not folder.history.exists():
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(child.pid, number)
    child.join(20)
    assert child.exitcode == 0
    assert folder.state() == "interrupted"
    assert folder.checkpoint.exists()
    assert attempt(folder) == "completed"
    assert_equal(folder, undisturbed)
    states = [
        json.loads((folder.sacred / str(number) / "run.json").read_text())["status"]
        for number in (1, 2)
    ]
    assert states == ["INTERRUPTED", "COMPLETED"]


def test_branches_in_two_processes_give_the_same_bits_as_one_after_another(tmp_path):
    chosen = entry("main", only="p_gap")
    serial, parallel = prepared(tmp_path / "a", chosen), prepared(tmp_path / "b", chosen)
    assert attempt(serial) == "completed"
    assert attempt(parallel, branches=2) == "completed"
    assert_equal(serial, parallel)
    assert not parallel.rounds.exists()
    sent = read_json(parallel.exchange)["branches"]
    plan = chosen.trial.plan
    assert len(sent) == sum(1 for segment in plan.segments if segment.branch is not None)
    layers = read_json(parallel.result)["density"]["layers"].values()
    assert sum(e["dense"] for e in sent) == 4 * sum(layer["numel"] for layer in layers)
    for entry_ in sent:
        assert entry_["bound"] <= entry_["sent"] < entry_["dense"] < entry_["file"] * 50
        assert entry_["sent"] < 1.05 * entry_["bound"] + 200  # heads of small masks


def test_branches_end_with_a_trial_that_is_killed_and_the_next_attempt_goes_on(tmp_path):
    chosen = entry("main", "partitions=2", "epochs=21", "rounds=1", "step_epochs=5", only="p_gap")
    undisturbed = prepared(tmp_path / "a", chosen)
    assert attempt(undisturbed) == "completed"
    folder = prepared(tmp_path / "b", chosen)
    child = in_child(run_attempt, folder.path, "tests", Execution(2, 0.1))
    started = [branch_folder(folder, 0, branch).checkpoint for branch in (0, 1)]
    wait_until(lambda: all(path.exists() for path in started), 60, "both branches to train")
    branches = branch_processes(folder)
    assert len(branches) == 2
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    wait_until(lambda: not branch_processes(folder), 30, "the branches to end")
    assert attempt(folder, branches=2) == "completed"
    assert_equal(folder, undisturbed)


def branch_processes(folder):
    """Return the processes that train branches of a trial."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"gapbench.execution.branches" in words and str(folder.path).encode() in words:
                found.append(int(path.parent.name))
    return found


def test_a_completed_trial_is_not_run_again(c_gap):
    _, folder = c_gap
    before = folder.result.stat().st_mtime_ns
    assert attempt(folder) == "completed"
    assert folder.result.stat().st_mtime_ns == before
    assert [path.name for path in sorted(folder.sacred.iterdir()) if path.name.isdigit()] == ["1"]


def test_what_method_md_asks_to_record_is_recorded(c_gap):
    _, folder = c_gap
    result = folder.read_result()
    lines = [json.loads(line) for line in folder.history.read_text().splitlines()]
    prunes = [line for line in lines if line.get("event") == "prune"]
    assert result["exploration"]["coverage"] == 1.0
    assert len(prunes) == 4
    for line in prunes:
        assert 0 < line["mask_error"] < 1
        assert line["before"]["val/accuracy"] >= 0
        assert line["after"]["val/accuracy"] >= 0
    assert all(0 <= value <= 1 for line in prunes for value in line["iou"].values())
    assert 0.09 < result["density"]["prunable"] <= 0.11
    assert result["cost"]["peak_density"] > result["cost"]["mean_density"] > 0.1
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(1, 13))
    metrics = json.loads((folder.sacred / "1" / "metrics.json").read_text())
    assert metrics["val/accuracy"]["values"][:12] == [line["val/accuracy"] for line in epochs]


def test_measured_cost_is_the_cost_that_the_dry_run_announced(c_gap):
    from gapbench.spec.dry_run import dry_run

    chosen, folder = c_gap
    forecast = dry_run([chosen])[0]
    cost = folder.read_result()["cost"]
    assert cost["train_flops_ratio"] == pytest.approx(forecast.train_flops_ratio, rel=1e-12)
    assert cost["inference_flops_ratio"] == pytest.approx(forecast.inference_flops_ratio, rel=1e-12)


def test_a_run_that_misses_its_sparsity_fails_and_names_the_layers(tmp_path, monkeypatch):
    from gapbench.engine.masked import MaskedWeights

    monkeypatch.setattr(MaskedWeights, "hold", lambda self: None)  # a loop that forgets the masks
    folder = prepared(tmp_path, entry("main", only="static"))
    assert attempt(folder) == "failed"
    error = json.loads(folder.status.read_text())["error"]
    assert error.startswith("sparsity missed in")
    assert ".weight has" in error
    assert not folder.completed()


def test_a_damaged_checkpoint_fails_the_trial_in_one_line_and_loses_nothing(c_gap, tmp_path):
    chosen, _ = c_gap
    folder = prepared(tmp_path, chosen)
    folder.checkpoint.write_bytes(b"PK\x03\x04 not a checkpoint")
    assert attempt(folder) == "failed"
    error = json.loads(folder.status.read_text())["error"]
    assert "is damaged" in error
    assert folder.checkpoint.read_bytes().startswith(b"PK")


def test_a_bit_that_flips_in_a_history_is_found_when_the_trial_goes_on(c_gap, tmp_path):
    chosen, _ = c_gap
    folder = prepared(tmp_path, chosen)
    asked = iter([False] * 40)
    assert run_attempt(folder.path, "tests", stop=lambda: next(asked, True)) == "interrupted"
    whole = folder.history.read_bytes()
    assert whole
    for place in random.Random(3).sample(range(len(whole)), 6):
        flipped = bytearray(whole)
        flipped[place] ^= 2
        folder.history.write_bytes(flipped)
        assert attempt(folder) == "failed"
        assert "changed since its checkpoint" in folder.read_status()["error"]
    folder.history.write_bytes(whole)
    assert attempt(folder) == "completed"
    assert_equal(folder, c_gap[1])


def test_a_trial_whose_loss_is_not_finite_ends_at_once_and_says_so(tmp_path):
    folder = prepared(tmp_path, entry("partitions", "recipe.lr=1e30", only="partitions=2"))
    assert attempt(folder) == "failed"
    assert "training diverged in epoch 1" in read_json(folder.status)["error"]


def test_a_trial_has_one_owner_at_a_time(c_gap, tmp_path):
    chosen, _ = c_gap
    folder = prepared(tmp_path, chosen)
    child = in_child(run_attempt, folder.path, "tests", Execution())
    while not folder.owner.exists():
        time.sleep(0.01)
    assert folder.state() == "running"
    with pytest.raises(UserError, match=f"is being run by process {child.pid}"):
        attempt(folder)
    child.join()
    assert folder.completed()
    assert not folder.owner.exists()


def _rank(rank: int, world: int, path: Path, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    trial = Trial.read(path / "trial.json")
    run_trial(RunFolder(path), trial, Execution(1, 0.05), lambda: False, lambda *_: None)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("method", ["rigl", "c_gap"])
def test_two_ranks_train_one_model_and_agree_at_every_mask_change(tmp_path, method):
    """`check_equal` stops a rank whose masks differ, so that completing is the proof."""
    folder = prepared(tmp_path, entry("main", "recipe.ranks=2", only=method))
    port = free_port()
    ranks = [in_child(_rank, rank, 2, folder.path, port) for rank in range(2)]
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    result = folder.read_result()
    assert result["ranks"] == 2
    assert result["metrics"]["test/accuracy"] > 80


def test_a_trial_is_not_trained_by_other_processes_than_its_key_says(c_gap, tmp_path):
    """Another number of them sums gradients in another order, which gives other numbers."""
    chosen, _ = c_gap
    folder = prepared(tmp_path, entry("partitions", "recipe.ranks=2", only="partitions=2"))
    assert folder.path.name != chosen.trial.key
    assert attempt(folder) == "failed"
    told = folder.read_status()["error"]
    assert told.startswith("1 processes train a trial of 2: start 2 processes")


def test_portable_kernels_give_the_bits_that_every_x86_64_processor_gives(tmp_path):
    """The digests are those of an AMD EPYC, and of an emulated Intel Haswell that knows less."""
    chosen = entry("main", "recipe.portable=true", only="rigl")
    # an epoch is a pass, as it was when these digests were taken on both
    passes = {**chosen.trial.task_options, "epoch_steps": None}
    settings = {name: getattr(chosen.trial, name) for name in Trial.model_fields}
    chosen = replace(chosen, trial=Trial(**{**settings, "task_options": passes}))
    folder = prepared(tmp_path, chosen)
    job = job_of(tmp_path, "tests", chosen, branches=1)
    fresh = multiprocessing.get_context("spawn").Process(target=Attempt(job, 1, gpus=""))
    fresh.start()
    fresh.join()
    result = folder.read_result()
    assert result["environment"]["torch"].startswith("2.13.0")  # others have other kernels
    assert result["digest"]["masks"][:16] == "c99e3a411caad71f"
    assert result["digest"]["weights"][:16] == "1c13207afcfd9730"


def test_a_process_that_computes_with_other_kernels_trains_no_portable_trial(tmp_path):
    folder = prepared(tmp_path, entry("main", "recipe.portable=true", only="rigl"))
    assert attempt(folder) == "failed"
    told = folder.read_status()["error"]
    assert told.startswith("recipe.portable: this process computes with")
