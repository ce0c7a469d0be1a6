"""The estimate of a run beside the time that it took."""

from __future__ import annotations

import pytest

from benchmarks import forecast


@pytest.mark.slow
def test_the_estimate_is_compared_with_the_time_that_was_left(tmp_path, capsys):
    page = tmp_path / "page.md"
    words = ["--scale", "smoke", "--seeds", "2", "--only", "partitions=4", "--set", "epochs=90"]
    assert forecast.main([*words, "--jobs", "1", "--page", str(page)]) == 0
    name, told, took, ratio = page.read_text().splitlines()[-1].strip("| ").split(" | ")
    assert name == "partitions, scale smoke, 2 trials"
    assert float(ratio) == pytest.approx(float(took) / float(told), abs=0.3)
    assert 0.3 < float(ratio) < 3  # a busy machine changes its speed
    assert "about " in capsys.readouterr().out
