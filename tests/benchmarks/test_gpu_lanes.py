from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_lanes


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_there_is_one_line_and_exit_code_two(capsys):
    assert gpu_lanes.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "needs a CUDA GPU" in err


@pytest.mark.parametrize("words", [["--lanes", "0"], ["--seconds", "0"], ["--lanes", "x"]])
def test_arguments_that_cannot_be_are_refused(words):
    with pytest.raises(SystemExit, match="2"):
        gpu_lanes.main(words)


def test_trials_are_of_two_methods_at_one_sparsity():
    chosen = gpu_lanes.trials("small", 5)
    assert [entry.trial.method for entry in chosen] == ["rigl", "c_gap"] * 2 + ["rigl"]
    assert len({entry.trial.key for entry in chosen}) == 5
    assert len({entry.trial.sparsity for entry in chosen}) == 1


def test_steps_are_counted_from_when_all_lanes_have_come(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(gpu_lanes.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(gpu_lanes, "WARM", 3)
    threads = iter([1] * 50 + [2, 1, 2, 1, 2] + [1, 2] * 10)
    monkeypatch.setattr(gpu_lanes.threading, "get_ident", lambda: next(threads))
    clock = gpu_lanes.Clock(2, seconds=4.0)
    for _ in range(55):  # the 55th step is the third of the second lane
        now[0] += 10
        assert not clock.stop()
    for _ in range(8):
        now[0] += 0.5
        stopped = clock.stop()
    assert stopped and clock.rate == pytest.approx(2.0)
    assert clock.stop() and clock.rate == pytest.approx(2.0)


@pytest.mark.slow
def test_lanes_of_real_trials_are_measured():
    assert gpu_lanes.images_a_second("mini", 1, 0.5) > 0
