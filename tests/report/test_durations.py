"""How long trials are expected to train follows from those of the same task."""

from __future__ import annotations

from gapbench.analysis.collect import scan
from gapbench.analysis.durations import expected_seconds
from tests.report.folders import entry_of, trial_of, write_run


def test_the_seconds_of_an_epoch_are_the_mean_over_the_trials_of_the_task(tmp_path):
    write_run(tmp_path, trial_of(), 90.0)  # 130.5 s for 60 epochs each
    write_run(tmp_path, trial_of("rigl", times=2), 90.0)
    longer, other = trial_of(times=4), trial_of(task_options={"size": 28, "epoch_steps": None})
    expected = expected_seconds(map(entry_of, (longer, other)), scan(tmp_path))
    assert expected == {longer.key: 2 * 130.5 / 180 * 240}
    assert expected_seconds([entry_of(longer)], scan(tmp_path / "empty")) == {}
