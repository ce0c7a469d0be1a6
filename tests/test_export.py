"""Exports: small, equal to what was trained, whole or not at all, and refusals in one line."""

from __future__ import annotations

import json
import math
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from gapbench.__main__ import main
from gapbench.errors import UserError
from gapbench.execution.export import load, sparse
from gapbench.runs.store import RunFolder
from gapbench.sparsity.inference import CsrLinear, load_csr
from gapbench.sparsity.masks import random_mask
from gapbench.spec.trials import Trial
from tests.runs import attempt, entry, prepared


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a completed sparse trial."""
    results = tmp_path_factory.mktemp("results")
    folder = prepared(results, entry("main", only="c_gap"))
    assert attempt(folder) == "completed"
    return folder


def export(folder, *options):
    return main(["export", folder.path.name, "--results", str(folder.path.parents[1]), *options])


def refused(capsys, folder, *options):
    assert export(folder, *options) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def outputs(folder, state):
    task = Trial.read(folder.trial).make_task()
    model = task.build_model().eval()
    model.load_state_dict(state)
    torch.manual_seed(0)
    with torch.no_grad():
        return model(torch.randn(16, *task.example_inputs()[0].shape[1:]))


def trained(folder):
    return torch.load(folder.model, weights_only=True)["model"]


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_an_exported_model_gives_the_outputs_of_the_trained_one(done, tmp_path, form, capsys):
    file = tmp_path / "model"
    assert export(done, "--format", form, "--out", str(file)) == 0
    assert f"{file.stat().st_size:,} bytes" in capsys.readouterr().out
    state = load(file) if form == "sparse" else torch.load(file, weights_only=True)
    assert list(state) == list(trained(done))
    assert torch.equal(outputs(done, state), outputs(done, trained(done)))
    assert all(torch.equal(state[name], tensor) for name, tensor in trained(done).items())


def test_a_sparse_file_tells_whose_it_is_and_the_shapes_of_its_layers(done, tmp_path):
    file = tmp_path / "model.safetensors"
    export(done, "--out", str(file))
    with safe_open(file, "pt") as opened:
        told = json.loads(opened.metadata()["gapbench"])
    masks = torch.load(done.model, weights_only=True)["masks"]
    assert (told["key"], told["task"]) == (done.path.name, "digits")
    assert "C-GaP" in told["label"]
    assert {name: tuple(layer["shape"]) for name, layer in told["layers"].items()} == {
        name: tuple(mask.shape) for name, mask in masks.items()
    }


def test_the_file_is_named_after_the_trial_by_default(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export(done) == export(done, "--format", "dense") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{done.path.name}.safetensors", f"{done.path.name}.pt"}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 64)
        self.fc = nn.Linear(64, 3000, bias=False, dtype=torch.bfloat16)
        self.out = nn.Linear(64, 100, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("steps", torch.tensor(3))


def test_tied_tensors_other_types_and_buffers_are_kept_and_written_once(tmp_path):
    torch.manual_seed(0)
    model = Tied()
    mask = random_mask((3000, 64), 19_200, torch.Generator().manual_seed(0))
    model.fc.weight.data[~mask] = 0
    content = sparse(model.state_dict(), {"fc.weight": mask}, {"key": "k"})
    (tmp_path / "file").write_bytes(content)
    state = load(tmp_path / "file")
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype
    assert state["out.weight"].data_ptr() == state["embed.weight"].data_ptr()
    bits = -sum(p * math.log2(p) for p in (0.1, 0.9)) * mask.numel()
    bound = bits / 8 + 2 * 19_200 + 4 * 6_400
    assert len(content) < 1.05 * bound


def test_weights_outside_their_mask_are_not_left_out_in_silence():
    state = {"fc.weight": torch.ones(4, 4)}
    with pytest.raises(UserError, match=r"fc\.weight: has weights outside its mask"):
        sparse(state, {"fc.weight": torch.eye(4, dtype=torch.bool)}, {})


def test_an_existing_file_is_left_alone(done, tmp_path, capsys):
    file = tmp_path / "precious"
    file.write_text("mine")
    assert "exists already" in refused(capsys, done, "--out", str(file))
    assert file.read_text() == "mine"


def test_a_trial_that_has_not_completed_is_refused(tmp_path, capsys):
    folder = prepared(tmp_path, entry("main", only="c_gap"))
    assert "planned, not completed" in refused(capsys, folder, "--out", str(tmp_path / "x"))


def test_an_unknown_trial_and_an_unknown_format_are_refused(done, tmp_path, capsys):
    assert main(["export", "zzzz", "--results", str(done.path.parents[1])]) == 2
    assert "unknown trial 'zzzz'" in capsys.readouterr().err
    assert "did you mean 'sparse'" in refused(capsys, done, "--format", "sparce")


def test_damaged_weights_are_refused(done, tmp_path, capsys):
    folder = prepared(tmp_path, entry("main", only="c_gap"))
    folder.result.write_bytes(done.result.read_bytes())
    file = str(tmp_path / "x")
    assert "final.pt: is missing" in refused(capsys, folder, "--out", file)
    whole = bytearray(done.model.read_bytes())
    whole[len(whole) // 2] ^= 1
    folder.model.write_bytes(whole)
    assert "final.pt: is damaged" in refused(capsys, folder, "--out", file)


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_a_full_disk_leaves_nothing_half_written(done, tmp_path, form):
    """A limit on the size of files stops the write as a full disk does."""
    program = "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    program += "from gapbench.__main__ import main; sys.exit(main(sys.argv[1:]))"
    options = ["--results", str(done.path.parents[1]), "--out", str(tmp_path / "x")]
    command = [sys.executable, "-c", program, "export", done.path.name, "--format", form, *options]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "cannot be written" in run.stderr, run.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_one_line(done, tmp_path, capsys):
    err = refused(capsys, done, "--out", str(tmp_path / "nowhere" / "x"))
    assert "cannot be written: No such file or directory" in err


def test_files_that_are_no_sparse_files_are_refused(done, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="damaged, or not a safetensors file"):
        load(tmp_path / "text")
    save_file({"a": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(UserError, match="not written by this version"):
        load(tmp_path / "other")


def test_a_sparse_file_with_a_damaged_mask_or_a_missing_part_is_refused(done, tmp_path):
    export(done, "--out", str(tmp_path / "whole"))
    with safe_open(tmp_path / "whole", "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    name = next(name for name in tensors if name.endswith(".mask"))
    for spoil, told in (
        (lambda: tensors[name].__setitem__(20, tensors[name][20] ^ 1), "entries are damaged"),
        (lambda: tensors.pop(name), f"{name} is missing"),
    ):
        spoil()
        save_file(tensors, tmp_path / "spoilt", metadata)
        with pytest.raises(UserError, match=told):
            load(tmp_path / "spoilt")


def test_a_small_file_that_denotes_a_huge_model_is_refused_before_it_takes_memory(tmp_path):
    file = tmp_path / "bomb.safetensors"
    shape = [2**31, 2]
    told = {"version": 1, "tied": {}, "names": ["a"], "layers": {"a": {"shape": shape}}}
    tensors = {"a.mask": torch.zeros(14, dtype=torch.uint8), "a.values": torch.zeros(0)}
    save_file(tensors, file, {"gapbench": json.dumps(told)})
    with pytest.raises(UserError, match="damaged: 4,294,967,296 weights are too many for"):
        load(file)


def test_a_model_that_cannot_be_read_is_not_called_damaged(done, tmp_path, capsys):
    """The advice to start over would cost a good trial."""
    folder = RunFolder(tmp_path / "runs" / done.path.name)
    shutil.copytree(done.path, folder.path)
    folder.model.unlink()
    folder.model.mkdir()
    told = refused(capsys, folder, "--out", str(tmp_path / "out"))
    assert "final.pt: cannot be read: is not a plain file" in told and "--force" not in told


def test_a_running_trial_is_exported_from_its_checkpoint_with_every_layer_at_its_target(
    tmp_path, capsys
):
    folder = prepared(tmp_path, entry("main", only="c_gap"))
    told = refused(capsys, folder, "--checkpoint", "--out", str(tmp_path / "x"))
    assert "planned, without a checkpoint yet" in told
    steps = iter(range(30))  # the second step of C-GaP, in which a partition is dense
    assert attempt(folder, lambda: next(steps, None) is None) == "interrupted"
    assert "completes it, or --checkpoint exports what it has so far" in refused(capsys, folder)
    file = tmp_path / "model.safetensors"
    before = folder.checkpoint.read_bytes()
    assert export(folder, "--checkpoint", "--out", str(file)) == 0
    state, trial = load(file), Trial.read(folder.trial)
    zeros = {name: int((state[name] == 0).sum()) for name in (x.name for x in trial.layers)}
    numel = {layer.name: layer.numel for layer in trial.layers}
    assert all(zeros[name] >= int(0.9 * numel[name]) for name in zeros)
    assert outputs(folder, state).isfinite().all()
    assert folder.checkpoint.read_bytes() == before
    assert attempt(folder) == "completed"
    told = refused(capsys, folder, "--checkpoint", "--out", str(tmp_path / "y"))
    assert "has completed: leave --checkpoint out" in told


def test_linear_layers_of_a_csr_file_multiply_by_what_is_not_zero(done, tmp_path):
    file = tmp_path / "model.pt"
    assert export(done, "--format", "csr", "--out", str(file)) == 0
    task = Trial.read(done.trial).make_task()
    model = load_csr(task.build_model(), torch.load(file, weights_only=True)).eval()
    assert isinstance(model.fc, CsrLinear) and model.fc.weight.layout == torch.sparse_csr
    inputs = torch.randn(16, *task.example_inputs()[0].shape[1:])
    whole = task.build_model().eval()
    whole.load_state_dict(trained(done))
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), whole(inputs), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match=r"fc\.weight: no linear layer of the model has this"):
        load_csr(nn.Sequential(nn.Linear(2, 2)), torch.load(file, weights_only=True))
