"""The bar that programs and notebooks see while trials run."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from gapbench.launch.following import epoch_bar, follow
from gapbench.runs.store import RunFolder
from tests.report.folders import trial_of, write_result


class Started:
    """A launch that has something to do three times."""

    left = 3

    def poll(self) -> bool:
        self.left -= 1
        return self.left > 0


def shown(folders: dict[RunFolder, int], terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with epoch_bar(folders, console) as show:
        follow(Started(), lambda: False, show)
    return re.sub(r"\x1b\[[0-9;?]*\w", "", console.file.getvalue())


def test_the_bar_counts_epochs_of_trials_that_run_and_that_have_completed(tmp_path: Path) -> None:
    done, running = (trial_of(seed=seed) for seed in (0, 1))
    write_result(tmp_path, done, 90.0)
    folders = {RunFolder(tmp_path / "runs" / trial.key): 20 for trial in (done, running)}
    half = list(folders)[1]
    half.prepare(running.document())
    half.beat(epoch=7.5, epochs=20)
    text = shown(folders, terminal=True)
    assert "1 of 2 trials" in text and "27/40 machine-epochs" in text


def test_nothing_is_drawn_where_nobody_looks(tmp_path: Path) -> None:
    assert shown({RunFolder(tmp_path / "runs" / trial_of().key): 20}, terminal=False) == ""
