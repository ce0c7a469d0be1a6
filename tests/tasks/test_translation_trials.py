"""The Transformer's rows of the partitions ablation, trained with the real fairseq."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from gapbench.__main__ import main
from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError
from gapbench.execution.export import load
from gapbench.execution.sacred_run import run_attempt
from gapbench.execution.trial_run import Execution
from gapbench.runs.store import RunFolder
from gapbench.spec.trials import Trial
from tests.runs import ABLATIONS, assert_equal, attempt

pytestmark = pytest.mark.fairseq

try:
    load_fairseq()
except UserError as missing:
    pytest.skip(str(missing), allow_module_level=True)

RUN = ["run", str(ABLATIONS / "translation.yaml"), "--scale", "smoke", "--only", "dense,c_gap"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main([*RUN, "--executor", "debug", "--results", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def trials(results):
    """The run folders by the number of partitions; None is the dense one's."""
    folders = [RunFolder(path) for path in (results / "runs").iterdir()]
    options = {folder: Trial.read(folder.trial).options for folder in folders}
    found = {
        given.get("partitions"): folder
        for folder, given in options.items()
        if given.get("strategy") != "random"
    }
    assert found.keys() == {None, 1, 3, 6}
    return found


def test_every_row_ends_with_bleu_and_its_exact_zeros(trials):
    for partitions, folder in trials.items():
        result = folder.read_result()
        assert {"test/bleu", "test/bleu_lowercase", "val/bleu"} <= result["metrics"].keys()
        assert result["signatures"]["bleu"].startswith("nrefs:1|case:mixed")
        layers = result["density"]["layers"].values()
        assert len(layers) == 48
        zeros = [round(layer["numel"] * (1 - layer["density"])) for layer in layers]
        sparsity = 0.8 if partitions else 0.0
        assert zeros == [int(sparsity * layer["numel"]) for layer in layers]


def test_training_lowers_the_loss_in_every_row(trials):
    for folder in trials.values():
        lines = [json.loads(line) for line in folder.history.read_text().splitlines()]
        losses = [line["train/loss"] for line in lines if line["kind"] == "epoch"]
        assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("partitions", [1, 3, 6])
def test_each_step_grows_consecutive_blocks_of_equal_number(trials, partitions):
    segments = Trial.read(trials[partitions].trial).plan.segments
    blocks = [{name.rsplit(".layers.")[1][0] + name[0] for name in s.phase.grow} for s in segments]
    order = ["0e", "1e", "2e", "0d", "1d", "2d"]
    size = 6 // partitions
    groups = [set(order[start : start + size]) for start in range(0, 6, size)]
    assert blocks == [*itertools.islice(itertools.cycle(groups), 6), set()]


def test_an_interrupted_trial_goes_on_to_the_same_bits(trials, tmp_path):
    whole = trials[3]
    folder = RunFolder(tmp_path / "runs" / whole.path.name)
    folder.prepare(json.loads(whole.trial.read_text()))
    asked = itertools.count()
    state = run_attempt(folder.path, "tests", Execution(), stop=lambda: next(asked) > 10)
    assert state == "interrupted"
    assert attempt(folder) == "completed"
    assert_equal(folder, whole)


def test_a_sparse_export_is_the_model_with_its_tied_embeddings(trials, results, tmp_path):
    folder, file = trials[6], tmp_path / "model"
    key = ["export", folder.path.name, "--results", str(results)]
    assert main([*key, "--out", str(file)]) == 0
    state = load(file)
    model = Trial.read(folder.trial).make_task().build_model()
    model.load_state_dict(state)
    trained = torch.load(folder.model, weights_only=True)["model"]
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())
    tied = {state[f"{side}.embed_tokens.weight"].data_ptr() for side in ("encoder", "decoder")}
    assert len(tied) == 1
