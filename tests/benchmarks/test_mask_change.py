from __future__ import annotations

import pytest
import torch

from benchmarks import mask_change
from benchmarks.events import DISTRIBUTIONS, Subject
from benchmarks.peers import NotInstalled

SIZE = "a small layer"


@pytest.fixture
def subject():
    return Subject(SIZE)


def zeros(subject):
    return sum(int((weight == 0).sum()) for weight in subject.weights.values())


def test_a_row_for_every_change_and_a_control_and_peak_memory_beside_them():
    pytest.importorskip("rigl_torch")
    found = {row.what.split(f", {SIZE}")[0]: row for row in mask_change.rows(quick=True)}
    assert list(found)[1:] == [
        *mask_change.PRUNES, "RigL update",
        "RigL update over rigl-torch's update", "prune, uniform over rigl-torch's update",
        "peak memory of prune, uniform", "peak memory of RigL update",
    ]  # fmt: skip
    control = found[next(iter(found))]
    assert control.what.endswith("A/A") and control.limit is None
    for name in (*mask_change.PRUNES, "RigL update"):
        row = found[name]
        assert (row.reference, row.limit, row.peers[0].name) == ("topk", 2.0, "kthvalue")
        assert "bytes a weight it moves" in row.note
    for name in mask_change.BESIDE_PEER:
        assert found[f"{name} over rigl-torch's update"].limit == 0.1
    assert found["peak memory of RigL update"].unit == "bytes a weight"


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_prune_that_is_measured_prunes_the_same_dense_weights(subject, distribution):
    event = subject.event(f"prune, {distribution}")
    masks = []
    for _ in range(3):
        event.prepare()
        assert zeros(subject) == 0
        event.run()
        masks.append(torch.cat([weight.flatten() == 0 for weight in subject.weights.values()]))
        assert int(masks[-1].sum()) == pytest.approx(0.9 * subject.numel, rel=0.01)
    assert torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("name", ["RigL update", "rigl-torch"])
def test_every_update_that_is_measured_moves_masks(subject, name):
    try:
        event = subject.event(name)
    except NotInstalled:
        pytest.skip("rigl-torch is not installed")
    event.prepare()
    for _ in range(3):
        before = {n: weight.detach() == 0 for n, weight in subject.weights.items()}
        event.run()
        event.prepare()
        after = {n: weight.detach() == 0 for n, weight in subject.weights.items()}
        assert any(not torch.equal(before[n], after[n]) for n in before)


def test_a_missing_peer_has_a_row_that_says_so(monkeypatch):
    def missing(*_, **__):
        raise NotInstalled("not installed")

    monkeypatch.setattr("benchmarks.events.rigl_torch", missing)
    rows = mask_change._against_peer(SIZE, SIZE)
    assert len(rows) == 2
    assert all(row.ours is None and row.note == "rigl-torch: not installed" for row in rows)
