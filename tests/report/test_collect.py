from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path

import pytest

from gapbench.analysis.collect import runs_frame, scan, write_runs
from gapbench.analysis.histories import read_histories, read_lines
from gapbench.base.documents import write_json
from tests.report.folders import entry_of, trial_of, write_run, write_trial


def reasons(results: Path) -> dict[str, str]:
    return {left.place: left.reason for left in scan(results).left_out}


def test_a_results_folder_without_runs_holds_nothing(tmp_path: Path) -> None:
    assert scan(tmp_path).runs == {} and scan(tmp_path).left_out == ()


def test_a_completed_trial_becomes_one_row_with_settings_and_measurements(tmp_path: Path) -> None:
    trial = trial_of(partitions=2)
    write_run(tmp_path, trial, 88.125)
    frame = runs_frame([entry_of(trial)], scan(tmp_path))
    row = frame.iloc[0]
    assert len(frame) == 1
    assert (row["key"], row["state"]) == (trial.key, "completed")
    assert (row["label"], row["partitions"], row["strategy"]) == ("C-GaP", 2, "cyclic")
    assert row["test/accuracy"] == 88.125 and row["cost/train_flops_ratio"] == 0.375
    assert row["exploration/coverage"] == 0.995 and row["sparsity/prunable"] == 0.9
    assert row["recipe.lr"] == 0.1 and row["environment/git_commit"] == "12345678"


def test_reports_name_neither_a_host_nor_its_own_kernel(tmp_path: Path) -> None:
    trial = trial_of()
    write_run(tmp_path, trial, 88.0)
    row = runs_frame([entry_of(trial)], scan(tmp_path)).iloc[0]
    assert "environment/host" not in row
    assert row["environment/system"] == "Linux-6.1.0-x86_64-with-glibc2.36"


def test_trials_that_have_not_run_are_rows_too_in_the_order_of_the_ablation(tmp_path: Path) -> None:
    trials = [trial_of(seed=2), trial_of("dense"), trial_of(seed=0)]
    write_run(tmp_path, trials[2], 80.0)
    write_trial(tmp_path, trials[0])
    frame = runs_frame([entry_of(trial) for trial in trials], scan(tmp_path))
    assert list(frame["key"]) == [trial.key for trial in trials]
    assert list(frame["state"]) == ["planned", "planned", "completed"]


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path) -> None:
    good = trial_of(seed=0)
    write_run(tmp_path, good, 88.0)
    runs = tmp_path / "runs"
    (runs / "notes").mkdir()
    (runs / "notes.txt").write_text("mine")
    half = write_run(tmp_path, trial_of(seed=1), 88.0)
    (half / "result.json").write_text('{"key": "' + half.name + '", "metr')
    bad_trial = write_run(tmp_path, trial_of(seed=2), 88.0)
    (bad_trial / "trial.json").write_text("[]")
    foreign = write_run(tmp_path, trial_of(seed=3), 88.0)
    (foreign / "result.json").write_text(json.dumps({"key": "0" * 16, "metrics": {"a/b": 1}}))
    renamed = write_run(tmp_path, trial_of(seed=4), 88.0)
    renamed.rename(runs / "fedcba9876543210")
    no_metrics = write_run(tmp_path, trial_of(seed=5), 88.0)
    (no_metrics / "result.json").write_text(json.dumps({"key": no_metrics.name}))
    no_layers = write_run(tmp_path, trial_of(seed=7), 88.0)
    damaged = {"key": no_layers.name, "metrics": {"test/accuracy": 1}, "density": {"layers": [1]}}
    (no_layers / "result.json").write_text(json.dumps(damaged))
    no_cost = write_run(tmp_path, trial_of(seed=8), 88.0)
    damaged = {"key": no_cost.name, "metrics": {"test/accuracy": 1}, "cost": 1}
    (no_cost / "result.json").write_text(json.dumps(damaged))
    unfinished = write_trial(tmp_path, trial_of(seed=6))
    (unfinished / "status.json").write_text(json.dumps({"state": "failed"}))
    found = reasons(tmp_path)
    assert set(scan(tmp_path).runs) == {good.key}
    assert found["runs/notes"] == "no trial.json: not a run folder"
    assert found["runs/notes.txt"] == "not a folder"
    assert found[f"runs/{half.name}"] == "result.json is damaged or half-written"
    assert "not a trial" in found[f"runs/{bad_trial.name}"]
    assert found[f"runs/{foreign.name}"] == "result.json belongs to another trial"
    assert "renamed or copied" in found["runs/fedcba9876543210"]
    assert found[f"runs/{no_metrics.name}"] == "result.json: metrics is missing"
    assert found[f"runs/{unfinished.name}"] == "no result yet: failed"
    assert found[f"runs/{no_layers.name}"] == "result.json: density/layers is damaged"
    assert found[f"runs/{no_cost.name}"] == "result.json: cost is damaged"
    assert len(found) == 10


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("cost", "train_flops_ratio", "fast"), ("exploration", "coverage", True),
     (None, "seconds", "long"), (None, "epochs", [1])],
)  # fmt: skip
def test_a_quantity_that_is_no_number_is_named(
    tmp_path: Path, part: str | None, name: str, value: object
) -> None:
    folder = write_run(tmp_path, trial_of(), 88.0)
    result = json.loads((folder / "result.json").read_text())
    (result if part is None else result[part])[name] = value
    (folder / "result.json").write_text(json.dumps(result))
    where = name if part is None else f"{part}/{name}"
    assert reasons(tmp_path) == {f"runs/{folder.name}": f"result.json: {where} is not a number"}


def test_a_run_folder_may_be_linked_in_and_no_link_below_it_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "results"
    elsewhere = write_run(outside, trial_of(seed=0), 99.0)
    (inside / "runs").mkdir(parents=True)
    (inside / "runs" / elsewhere.name).symlink_to(elsewhere)
    (inside / "runs" / "gone").symlink_to(outside / "gone")
    folder = write_run(inside, trial_of(seed=1), 88.0)
    secret = outside / "secret"
    secret.write_text((folder / "result.json").read_text())
    (folder / "result.json").unlink()
    (folder / "result.json").symlink_to(secret)
    assert set(scan(inside).runs) == {elsewhere.name}
    assert set(reasons(inside)) == {"runs/gone", f"runs/{folder.name}"}
    waiting = write_trial(inside, trial_of(seed=2))
    (outside / "status").write_text(json.dumps({"state": "failed"}))
    (waiting / "status.json").symlink_to(outside / "status")
    assert scan(inside).states == {waiting.name: "planned"}


def test_a_history_behind_a_link_is_not_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path, trial_of(), 88.0)
    text = (folder / "history.jsonl").read_text()
    (tmp_path / "elsewhere").write_text(text)
    (folder / "history.jsonl").unlink()
    (folder / "history.jsonl").symlink_to(tmp_path / "elsewhere")
    found = read_histories(scan(tmp_path).runs.values(), ["val/accuracy"])
    assert len(found.curves) == 0 and "not a plain file" in found.left_out[0].reason


def test_damaged_lines_of_a_history_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path, trial_of(), 88.0)
    lines = (folder / "history.jsonl").read_text().splitlines()
    lines[3] = lines[3][:20]
    (folder / "history.jsonl").write_text("\n".join(lines))
    found = read_histories(scan(tmp_path).runs.values(), ["val/accuracy"])
    assert found.left_out[0].reason == f"1 of {len(lines)} lines are damaged"
    assert len(found.curves) + len(found.changes) == len(lines) - 1


def test_lines_of_other_kinds_are_not_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path, trial_of(), 88.0)
    lines = (folder / "history.jsonl").read_text().splitlines()
    spaced = [json.dumps(json.loads(line)) for line in lines]  # as another program writes them
    broken = next(line for line in lines if '"change"' in line)[:40]
    (folder / "history.jsonl").write_text("\n".join([*lines, *spaced, broken]))
    (run,) = scan(tmp_path).runs.values()
    epochs, wrong = read_lines(run, ("epoch",))
    assert [line["kind"] for line in epochs] == ["epoch"] * 8 and wrong is None
    assert read_lines(run)[1] == f"1 of {2 * len(lines) + 1} lines are damaged"
    found = read_histories([run], ["val/accuracy"], ())
    assert len(found.curves) == len(found.changes) == 0 and len(found.layers) == 3


def test_history_values_of_a_wrong_type_are_no_numbers(tmp_path: Path) -> None:
    folder = write_run(tmp_path, trial_of(), 88.0)
    wrong = {"kind": "epoch", "epoch": 5, "val/accuracy": [1]}
    worse = {"kind": "change", "epoch": 5, "event": "prune"}
    values = ({"iou": "high"}, {"iou": {"fc.weight": None}}, {"before": {"val/accuracy": "x"}})
    with open(folder / "history.jsonl", "a") as file:
        for line in (
            {**wrong, "coverage": "much"},
            wrong,
            *({**worse, **value} for value in values),
        ):
            file.write(f"{json.dumps(line)}\n")
    found = read_histories(scan(tmp_path).runs.values(), ["val/accuracy"])
    assert math.isnan(found.curves["val/accuracy"].iloc[-1])
    assert found.left_out[0].reason.startswith("4 of ")


def test_histories_hold_curves_changes_and_layers(tmp_path: Path) -> None:
    trial = trial_of()
    write_run(tmp_path, trial, 88.0)
    found = read_histories(scan(tmp_path).runs.values(), ["val/accuracy", "train/loss"])
    assert list(found.curves["val/accuracy"]) == [85.0, 86.0, 87.0, 88.0]
    assert list(found.changes["event"]) == ["initial", "grow", "prune", "prune"]
    assert found.changes["before"].iloc[2]["val/accuracy"] == 88.0
    assert list(found.layers["numel"]) == [144, 2304, 640]


def test_runs_csv_has_every_number_in_full(tmp_path: Path) -> None:
    entries = [entry_of(trial_of(seed=seed), "1e5") for seed in range(3)]
    for index, entry in enumerate(entries[:-1]):
        write_run(tmp_path, entry.trial, 100 / 3 if index else math.nan)
    frame = runs_frame(entries, scan(tmp_path))
    write_runs(frame, tmp_path / "runs.csv")
    with open(tmp_path / "runs.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["state"] for line in lines] == ["completed", "completed", "planned"]
    assert [line["test/accuracy"] for line in lines] == ["nan", repr(100 / 3), ""]
    assert lines[0].keys() == set(frame.columns) and lines[0]["label"] == "1e5"


def test_a_thousand_folders_are_read_in_their_share_of_ten_seconds(tmp_path: Path) -> None:
    entries = [entry_of(trial_of(seed=seed)) for seed in range(1000)]
    for entry in entries:
        write_run(tmp_path, entry.trial, 80 + entry.trial.seed % 7)
    began = time.process_time()
    found = scan(tmp_path)
    frame = runs_frame(entries, found)
    histories = read_histories(found.runs.values(), ["val/accuracy"])
    assert time.process_time() - began < 10  # of 10 s for 2,000, with figures, on a slow machine
    assert len(frame) == 1000 and len(histories.curves) == 4000


def test_a_result_of_other_processes_than_the_trials_is_left_out(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, trial_of(seed=seed), 88.0) for seed in range(3)]
    for folder, ranks in zip(folders, (1, 2, None), strict=True):
        result = json.loads((folder / "result.json").read_text())
        write_json(folder / "result.json", result if ranks is None else {**result, "ranks": ranks})
    reason = "trained by 2 processes, not 1: its numbers belong to another trial"
    assert reasons(tmp_path) == {f"runs/{folders[1].name}": reason}
