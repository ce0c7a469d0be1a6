from __future__ import annotations

import importlib

import pytest
import torch

from benchmarks import peers
from benchmarks.models import images, resnet20
from benchmarks.step_overhead import METHODS, PEERS, contestant, memory, rows
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.sparsity.layers import prunable


@pytest.fixture(scope="module")
def found():
    return rows(quick=True)


def test_every_method_stands_beside_dense_and_all_peers_and_a_control_beside_them(found):
    *steps, masks = found
    assert [row.what.rpartition(": ")[2] for row in steps] == ["A/A", *METHODS] * 2
    for row in steps:
        assert row.reference == "dense" and row.ratio > 0
        names = () if row.what.endswith("A/A") else PEERS
        assert tuple(peer.name for peer in row.peers) == names
    assert (masks.ours, masks.reached) == (1.0, True)


def test_a_peer_that_is_not_there_is_said_to_be_missing(monkeypatch):
    whole = importlib.import_module

    def without(name, *given):
        if name.startswith("rigl_torch"):
            raise ImportError(name)
        return whole(name, *given)

    monkeypatch.setattr(peers.importlib, "import_module", without)
    model = resnet20()
    with pytest.raises(peers.NotInstalled, match="not installed"):
        contestant("rigl-torch", model, "SGD", images(2, 8)())


@pytest.mark.parametrize("name", [*METHODS, *PEERS])
def test_contestants_really_train_with_nine_of_ten_weights_masked(name):
    if name == "rigl-torch":
        load_torchvision()
        pytest.importorskip("rigl_torch")
    torch.manual_seed(0)
    model = resnet20()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    step = contestant(name, model, "SGD", images(2, 8)())
    step()
    step()
    zeros = total = 0
    for full in prunable(resnet20()):
        owner, _, attribute = full.rpartition(".")
        weight = getattr(model.get_submodule(owner), attribute)
        zeros, total = zeros + int((weight == 0).sum()), total + weight.numel()
    lowest = 0.6 if name == "c_gap" else 0.89  # the largest of four partitions is dense
    assert lowest < zeros / total < 0.91
    bias = model.get_parameter("fc.bias")
    assert not torch.equal(bias, before["fc.bias"])


def test_memory_of_masks_counts_what_a_run_adds():
    row = memory(resnet20)
    assert row.ours == 1.0 and "1.00 for the record" in row.note
