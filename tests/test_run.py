"""The run command: what it does, what it does not do twice, and one line for bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gapbench.__main__ import main
from gapbench.runs.store import RunFolder
from gapbench.training import state
from tests.children import in_child
from tests.runs import ABLATIONS, assert_equal, prepared

ROOT = ABLATIONS.parent
PARTITIONS = str(ABLATIONS / "partitions.yaml")
SMOKE = ["run", PARTITIONS, "--scale", "smoke", "--executor", "debug", "--seeds", "1"]
SMOKE += []
TWO = [*SMOKE, "--only", "dense,c_gap", "--only", "partitions=1,2"]


def refused(capsys, *arguments, code=2):
    """Run a command that must be refused, and return its one line."""
    assert main([str(argument) for argument in arguments]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Results of two completed smoke trials, run by the local executor."""
    results = tmp_path_factory.mktemp("done")
    command = [*TWO, "--results", str(results)]
    command[command.index("debug")] = "local"
    finished = subprocess.run(
        [sys.executable, "-m", "gapbench", *command], capture_output=True, text=True, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return results, finished.stdout


def test_a_run_trains_compares_and_reports(done):
    results, output = done
    assert "2 trials, 0 done, 2 to run" in output
    assert "C-GaP" in output
    made = results / "reports" / "smoke" / "partitions"
    assert f"report: {made}" in output
    last = output.splitlines()[-1]
    assert last.startswith("2 of 2 trials have completed; claims: ")
    assert last.endswith(f"; page: {made / 'index.html'}") and "\a" not in output
    for name in ("index.html", "runs.csv", "table.md", "table.csv", "table.tex"):
        assert (made / name).stat().st_size > 0, name
    assert list((made / "figures").glob("*.png"))
    assert list((made / "figures").glob("*.svg"))


@pytest.mark.parametrize("also", [(), ("-n",)])
def test_an_executor_that_cannot_do_what_is_asked_is_refused_before_the_plan(also, capsys):
    told = refused(capsys, *SMOKE, "--executor", "foo", *also)
    assert "unknown executor 'foo': valid: debug, local, slurm" in told
    told = refused(capsys, *TWO, "--profile", "nothere.yaml", *also)
    assert "--profile: the executor debug submits nothing to SLURM: use slurm" in told
    looks = [*SMOKE[:-2], "--until-resolved", "--profile", "nothere.yaml", *also]
    assert "submits nothing to SLURM" in refused(capsys, *looks)
    assert capsys.readouterr().out == ""


def test_running_again_does_nothing(done, capsys):
    results, _ = done
    before = {p: p.stat().st_mtime_ns for p in (results / "runs").rglob("*") if p.is_file()}
    assert main([*TWO, "--results", str(results)]) == 0
    output = capsys.readouterr().out
    assert "2 trials, 2 done, 0 to run" in output
    assert output.splitlines()[-1].startswith("2 of 2 trials have completed; ")
    after = {p: p.stat().st_mtime_ns for p in (results / "runs").rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.slow
def test_the_executor_has_no_influence_on_the_numbers(done, tmp_path):
    results, _ = done
    assert main([*TWO, "--results", str(tmp_path)]) == 0
    for path in (results / "runs").iterdir():
        assert_equal(RunFolder(path), RunFolder(tmp_path / "runs" / path.name))


@pytest.mark.slow
def test_force_starts_over(done, tmp_path, capsys):
    only = [*SMOKE, "--only", "dense", "--results", str(tmp_path)]
    assert main(only) == 0
    (result,) = tmp_path.glob("runs/*/result.json")
    first = result.stat().st_mtime_ns
    assert main([*only, "--force"]) == 0
    assert result.stat().st_mtime_ns > first


def test_status_show_and_logs_tell_what_happened(done, capsys):
    results, _ = done
    at = ["--results", str(results)]
    assert main(["status", PARTITIONS, "--scale", "smoke", "--json", *at]) == 0
    states = [view["state"] for view in json.loads(capsys.readouterr().out)]
    assert states.count("completed") == 2
    (key, *_) = sorted(path.name for path in (results / "runs").iterdir())
    assert main(["show", key[:8], *at]) == 0
    shown = capsys.readouterr().out
    parts = [line.split()[0] for line in shown.splitlines()[1:]]
    assert list(dict.fromkeys(parts)) == ["trial", "plan", "result"]  # the longest at the end
    assert "test/accuracy" in shown
    assert re.search(r"\d\.\d{8}", shown) is None
    assert main(["show", key, "--json", *at]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "completed"
    assert main(["logs", key, *at]) == 0
    assert "Completed" in capsys.readouterr().out
    assert main(["report", PARTITIONS, "--scale", "smoke", *at]) == 0


def test_status_shows_on_80_columns_the_keys_that_other_commands_take(done, capsys, monkeypatch):
    results, _ = done
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["status", "--results", str(results)]) == 0
    told = capsys.readouterr().out
    for path in (results / "runs").iterdir():
        assert re.search(rf"^{path.name[:8]} .*completed.*accuracy \d", told, re.MULTILINE)
    assert " epochs" in told  # RigL and its fivefold run are told apart


@pytest.mark.slow
def test_one_failing_trial_leaves_the_others_running(tmp_path, capsys):
    chosen = [*SMOKE, "--only", "dense,rigl", "--results", str(tmp_path)]
    assert main([*chosen, "--dry-run", "--json"]) == 0
    keys = [forecast["key"] for forecast in json.loads(capsys.readouterr().out)]
    folder = tmp_path / "runs" / keys[0]
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    assert main(chosen) == 1
    out = capsys.readouterr().out
    assert "is damaged" in out
    assert "Traceback" not in out
    assert RunFolder(tmp_path / "runs" / keys[1]).completed()
    assert main(["logs", keys[0], "--results", str(tmp_path)]) == 0
    log = capsys.readouterr().out
    assert "is damaged" in log and "Traceback" not in log
    assert main([*chosen, "--force", "--retry-failed"]) == 0
    assert RunFolder(folder).completed()


@pytest.mark.parametrize(
    "content", [[], {"schema": state.SCHEMA}, {"schema": state.SCHEMA, "training": 3}]
)
def test_a_checkpoint_of_wrong_content_fails_its_trial_in_one_line(tmp_path, capsys, content):
    chosen = [*SMOKE, "--only", "dense", "--results", str(tmp_path)]
    assert main([*chosen, "--dry-run", "--json"]) == 0
    (forecast,) = json.loads(capsys.readouterr().out)
    checkpoint = tmp_path / "runs" / forecast["key"] / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    torch.save(content, checkpoint)
    assert main(chosen) == 1
    told = capsys.readouterr()
    failed = [line for line in told.out.splitlines() if line.startswith("failed:")]
    assert len(failed) == 1
    assert "checkpoint.pt" in failed[0] and "--force" in failed[0]
    assert "Traceback" not in told.out + told.err
    assert main([*chosen, "--force", "--retry-failed"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: c_gapp", "ablation.yaml:5: trials[0].method: unknown method 'c_gapp': did you"),
        ("method: c_gap, partions: 2", "did you mean 'partitions'"),
        ("method: c_gap, sparsity: 1.2", "sparsity"),
        ("method: c_gap, partitions: 99", "99"),
        ("method: c_gap, epochs: -5", "epochs"),
        ("method: c_gap, epochs: .nan", "epochs"),
        ("method: c_gap, partitions: true", "partitions"),
        ("method: c_gap, sparsity: [0.9", "broken YAML"),
        ("method: rigl, distribution: global_magnitude", "global_magnitude"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_mistake_in_the_file_is_one_line_and_trains_nothing(tmp_path, capsys, text, message, dry):
    file = tmp_path / "ablation.yaml"
    head = "name: mine\nquestion: why?\nscales: {smoke: {task: digits, epochs: 6, sparsity: 0.9}}"
    file.write_text(f"{head}\ntrials:\n  - {{{text}, seeds: 1}}\n")
    results = tmp_path / "results"
    options = ["--scale", "smoke", "--executor", "debug", "--results", results, *dry]
    err = refused(capsys, "run", file, *options)
    assert "ablation.yaml" in err
    assert message in err
    assert not results.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        ([*SMOKE, "--scale", "smok"], "did you mean 'smoke'"),
        ([*SMOKE, "--executor", "slrum"], "did you mean 'slurm'"),
        ([*SMOKE, "--set", "partions=2"], "did you mean 'partitions'"),
        ([*SMOKE, "--set", "partitions=[]"], "--set: partitions: [] is not possible: give at"),
        ([*SMOKE, "--seeds", "x"], "--seeds"),
        ([*SMOKE, "--only", "nothing"], "no trial matches"),
        ([*SMOKE, "--jobs", "0"], "--jobs"),
        ([*SMOKE, "--resluts", "x"], "--resluts"),
        (["runn"], "runn"),
        (["train"], "'train': `gapbench --help` lists the options"),
        (["show", "abc", "--results", "."], "nothing has run here: `gapbench run FILE`"),
        (["show", "abc", "--results", "/nonexistent"], "no such folder"),
        (["list", "method"], "did you mean 'methods'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_results_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    err = refused(capsys, *SMOKE, "--results", tmp_path / "file" / "results")
    assert "cannot be written" in err


def test_missing_data_fail_trials_in_one_line_for_all(tmp_path, capsys, monkeypatch):
    """No folder of data, no package manager, no network: every source says why it failed."""
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    command = ["run", PARTITIONS, "--executor", "debug", "--seeds", "2", "--only", "dense"]
    command += []
    if Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("the system has the data, which is a source that always answers")
    assert main([*command, "--results", str(tmp_path / "results")]) == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith("failed:")]
    assert len(failed) == 1
    assert "fashion-mnist" in failed[0].lower()
    assert "failed likewise: Dense seed 1" in out and out.count("Dense seed 1: the same error") == 1
    assert "Traceback" not in out


def _slow_trial(path):
    from gapbench.execution.sacred_run import run_attempt

    run_attempt(path, "tests")


@pytest.mark.slow
def test_a_second_launcher_leaves_running_trials_to_the_first(tmp_path, capsys):
    from gapbench.spec.selection import expanded

    entry = expanded(Path(PARTITIONS), "smoke", ["epochs=60"], ["dense"], "1")[2][0]
    folder = prepared(tmp_path, entry)
    child = in_child(_slow_trial, folder.path)
    while not folder.owner.exists():
        time.sleep(0.01)
    command = [*SMOKE, "--set", "epochs=60", "--only", "dense", "--results", str(tmp_path)]
    err = refused(capsys, *command)
    assert "another process runs the remaining trials" in err
    os.kill(child.pid, signal.SIGTERM)
    child.join()
    assert folder.state() == "interrupted"


def test_a_second_launcher_waits_for_the_trials_of_the_first_and_reports_them(tmp_path, capsys):
    from gapbench.spec.selection import expanded

    file = tmp_path / "two.yaml"
    rows = "[{method: dense, epochs: 30}, {method: static, epochs: 1, sparsity: 0.9}]"
    scales = "{smoke: {task: digits, seeds: 1}}"
    file.write_text(f"name: two\nquestion: why?\nscales: {scales}\ntrials: {rows}\n")
    entries = expanded(file, "smoke", [], [], None)[2]
    folder = prepared(tmp_path, entries[0])
    child = in_child(_slow_trial, folder.path)
    while not folder.owner.exists():
        time.sleep(0.01)
    command = ["run", str(file), "--scale", "smoke", "--executor", "debug"]
    assert main([*command, "--results", str(tmp_path)]) == 0
    child.join()
    out = capsys.readouterr().out
    assert f"left to another process or job: {entries[0].label}" in out
    assert all(RunFolder(tmp_path / "runs" / e.trial.key).completed() for e in entries)
    assert "not run" not in out


@pytest.mark.slow
def test_ctrl_c_stops_trials_at_a_checkpoint_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-m", "gapbench", *SMOKE, "--only", "dense", "--set", "epochs=40"]
    command[command.index("debug")] = "local"
    command += ["--results", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    (folder,) = (RunFolder(path) for path in tmp_path.glob("runs/*"))
    assert folder.state() == "interrupted"
    assert folder.checkpoint.exists()
    command[command.index("local")] = "debug"
    assert main(command[3:]) == 0
    assert folder.completed()


@pytest.mark.parametrize(
    "mistake",
    [("--executor", "nonsense"), ("--executor", "slurm", "--profile", "/nonexistent")],
)
def test_force_forgets_nothing_where_the_launcher_refuses(tmp_path, mistake):
    only = [*SMOKE, "--only", "dense", "--results", str(tmp_path)]
    assert main(only) == 0
    runs = tmp_path / "runs"
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert main([*only, "--force", *mistake]) == 2
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_a_report_section_that_does_not_fit_is_told_before_anything_is_trained(tmp_path, capsys):
    command = [*SMOKE, "--set", "recipe.lr=[0.1,0.05]", "--results", tmp_path / "results"]
    err = refused(capsys, *command)
    assert "partitions.yaml:" in err and "report.rows: the trials of row" in err
    assert "differ in recipe.lr (0.1, 0.05): add recipe.lr to rows" in err
    assert refused(capsys, *command, "--dry-run") == err
    assert not (tmp_path / "results").exists()


def test_retrying_what_has_failed_is_no_failure_of_what_was_not_to_run(tmp_path, capsys):
    chosen = [*SMOKE, "--only", "dense,rigl", "--results", str(tmp_path)]
    assert main([*chosen, "--retry-failed"]) == 0
    out = capsys.readouterr().out
    assert "0 done, 0 to run" in out and "planned:" not in out
    assert not (tmp_path / "runs").exists()


def test_a_damaged_run_folder_takes_no_other_down(done, tmp_path, capsys):
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    broken, whole = sorted((tmp_path / "runs").iterdir())
    (broken / "result.json").unlink()
    damage = {"state": "interrupted", "epochs": 6}, {"state": 5}, {"metric": [1], "epochs": "6"}
    for status in damage:
        (broken / "status.json").write_text(json.dumps(status))
        (broken / "owner.json").write_text(json.dumps({"pid": "x", "host": socket.gethostname()}))
        assert main(["status", "--json", "--results", str(tmp_path)]) == 0
        views = {view["key"]: view["state"] for view in json.loads(capsys.readouterr().out)}
        assert views.pop(whole.name) == "completed" and views.keys() == {broken.name}
        for command in ("status", "cancel"):
            assert main([command, "--results", str(tmp_path)]) == 0
        assert "nothing is running" in capsys.readouterr().out


def test_a_finished_trial_that_no_report_believes_is_told(done, tmp_path, capsys):
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    broken = sorted((tmp_path / "runs").iterdir())[0]
    (broken / "trial.json").write_text("{}")
    assert main([*TWO, "--results", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "unusable: " in told and f"delete {broken} and run again" in told


def test_status_and_cancel_take_the_same_choice_of_trials(done, capsys):
    results, _ = done
    at = ["--scale", "smoke", "--results", str(results)]
    picked = ["--only", "partitions=2", "--seeds", "1"]
    assert main(["status", PARTITIONS, *at, "--json", *picked]) == 0
    (view,) = json.loads(capsys.readouterr().out)
    assert view["state"] == "completed"
    assert main(["cancel", PARTITIONS, *at, *picked]) == 0
    assert "nothing is running" in capsys.readouterr().out
    for command in ("status", "cancel"):
        err = refused(capsys, command, "--only", "dense", "--results", results)
        assert "--only: needs an ablation file" in err
