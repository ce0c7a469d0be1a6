"""What the table of trials shows on terminals of several widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gapbench.cli import progress
from gapbench.cli.progress import Progress, View, seconds_left, table_of

STATUS = {
    "attempt": 3,
    "epoch": 12.5,
    "epochs": 160,
    "phase": "fine-tune",
    "density": 0.05,
    "seconds_left": 11_100.0,
    "metric": {"val/accuracy": 87.5},
}


def view(job: str | None = None, hint: str = "") -> View:
    label = "C-GaP global_magnitude 0.95 strategy=random seed 5"
    return View(label, "c6b1f09e01234567", "running", STATUS, job, hint)


@pytest.mark.parametrize("width", [80, 100, 120, 160])
@pytest.mark.parametrize("job", [None, "4711_12"])
def test_the_table_fits_the_terminal(width: int, job: str | None) -> None:
    hint = "waits for Resources" if job else ""
    lines = table_of([view(job, hint)] * 2, width).plain.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:3] == ["key", "trial", "state"]
    assert "val/accuracy 87.50" in lines[1] and "c6b1f09e " in lines[1]
    assert job is None or job in lines[1]


def test_columns_give_way_one_after_the_other() -> None:
    heads = {w: table_of([view()], w).plain.splitlines()[0].split() for w in (160, 100, 84, 70)}
    assert heads[160][2:] == ["state", "resumed", "phase", "epoch", "metric", "density", "left"]
    assert heads[100][2:] == ["state", "resumed", "phase", "epoch", "metric", "left"]
    assert heads[84][2:] == ["state", "epoch", "metric", "left"]
    assert heads[70][2:] == ["state", "metric"]


def test_columns_in_which_no_trial_has_anything_are_left_out() -> None:
    planned = View("Dense seed 0", "0" * 16, "planned", {}, None, "")
    assert table_of([planned], 80).plain.splitlines()[0].split() == ["key", "trial", "state"]
    assert table_of([], 80).plain.split() == ["key", "trial", "state"]


def test_the_time_left_of_a_run_counts_what_waits_at_the_measured_pace() -> None:
    one = View("a", "1", "running", {"epoch": 6.0, "epochs": 10, "seconds_left": 40.0})
    two = View("b", "2", "running", {"epoch": 0.0, "epochs": 20, "seconds_left": 200.0})
    fresh = View("c", "3", "running", {"epoch": 0, "epochs": 10})
    done = View("d", "4", "completed", {"epochs": 10, "seconds_left": 5.0})
    assert seconds_left([fresh, done], [10]) is None
    # 10 seconds an epoch, two side by side: 24 epochs run and 16 wait
    assert seconds_left([one, two, done], [12, 4]) == pytest.approx((240 + 160) / 2)
    assert seconds_left([one, two], []) == pytest.approx(200.0)  # no sooner than the longest ends


def test_what_a_run_will_take_is_printed_once_when_all_lanes_have_their_pace(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    shown = Progress(Console(file=out, width=80), {"1": 10, "2": 10, "3": 10})
    waiting = View("c", "3", "planned", {})

    def running(*left: float | None) -> list[View]:
        return [
            View(str(n), str(n), "running", {"epoch": 1.0, "epochs": 10, "seconds_left": seconds})
            for n, seconds in enumerate(left, 1)
        ]

    def told(*left: float | None) -> int:
        shown.show([*running(*left), waiting])
        return out.getvalue().count("expected")

    assert told(90.0) == 0  # the first lane alone
    now[0] += progress.SETTLE_SECONDS - 1
    assert told(90.0, None) == 0  # a second one has begun
    now[0] += progress.SETTLE_SECONDS - 1
    assert told(90.0, 90.0) == 0
    now[0] += 1
    assert told(90.0, None) == 0
    assert told(90.0) == 0  # one has ended, and the next one has not begun
    assert told(90.0, 90.0) == 1
    now[0] += 1000
    assert told(45.0, 45.0) == 1
    assert "about 2m left for all trials, 2 side by side" in out.getvalue()
