"""What the loop records around the prunes of gradual pruning, and what its steps draw from."""

from __future__ import annotations

import itertools

import pytest
import torch

from gapbench.execution.recorder import read_history
from gapbench.execution.sacred_run import run_attempt
from gapbench.execution.trial_run import Execution
from gapbench.training.loop import _seed_noise
from tests.runs import assert_equal, attempt, entry, prepared


@pytest.mark.slow
def test_the_last_prune_of_gradual_pruning_is_measured_on_both_sides_and_resumes_bitwise(tmp_path):
    chosen = entry(only="method=gradual")
    straight = prepared(tmp_path / "straight", chosen)
    assert attempt(straight) == "completed"
    prunes = [line for line in read_history(straight.history) if line.get("event") == "prune"]
    assert len(prunes) > 2
    assert all(line["before"] is line["after"] is None for line in prunes[:-1])
    for moment in ("before", "after"):
        assert 0 < prunes[-1][moment]["val/accuracy"] <= 100
    assert prunes[-1]["before"] != prunes[-1]["after"]

    stopped = prepared(tmp_path / "stopped", chosen)
    state, attempts = "", 0
    while state != "completed":
        asked = itertools.count()
        state = run_attempt(
            stopped.path, "tests", Execution(), stop=lambda asked=asked: next(asked) >= 25
        )
        attempts += 1
    assert attempts > 2
    assert_equal(straight, stopped)


def test_a_step_on_the_cpu_draws_what_it_draws_after_torch_is_seeded():
    torch.manual_seed(5)
    expected = torch.rand(4)
    _seed_noise(torch.device("cpu"), 5)
    assert torch.equal(torch.rand(4), expected)
