"""What Sacred is told of an attempt, and what it must not decide."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gapbench
from gapbench.compat.sacred_import import Experiment
from gapbench.execution.environment import git_state
from gapbench.execution.sacred_run import config_of, own_sources
from tests.runs import ABLATIONS, attempt, entry, prepared

PACKAGE = Path(gapbench.__file__).parent


def test_an_attempt_asks_no_nvidia_smi_and_keeps_only_our_sources(tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    survey = tmp_path / "bin" / "nvidia-smi"
    survey.parent.mkdir()
    survey.write_text(f"#!/bin/sh\ntouch {asked}\nsleep 60\n")
    survey.chmod(0o755)
    monkeypatch.setenv("PATH", f"{survey.parent}{os.pathsep}{os.environ['PATH']}")
    folder = prepared(tmp_path, entry(only="dense"))
    began = time.monotonic()
    assert attempt(folder) == "completed"
    assert time.monotonic() - began < 30 and not asked.exists()
    run = json.loads((folder.sacred / "1" / "run.json").read_text())
    kept = [name for name, _ in run["experiment"]["sources"]]
    assert "gapbench/execution/sacred_run.py" in kept
    assert all(name.startswith("gapbench/") for name in kept)


def test_a_plug_ins_sources_are_kept_and_those_of_libraries_are_not(tmp_path, monkeypatch):
    info = tmp_path / "ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gapbench.methods]\nmine = ours_for_tests.methods\n")
    (tmp_path / "ours_for_tests").mkdir()
    for name in ("__init__", "methods"):
        (tmp_path / "ours_for_tests" / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("ours_for_tests.methods")
    found = {Path(file) for file in own_sources()}
    assert tmp_path / "ours_for_tests" / "methods.py" in found
    assert PACKAGE / "errors.py" in found
    assert all(PACKAGE in path.parents or tmp_path in path.parents for path in found)


@pytest.mark.parametrize("key", ["fc.weight", "$a", "a=b", "py/object", "", "a b", "json://x"])
def test_sacred_takes_whatever_keys_options_have(key):
    options = {"plain": 1, "dense_for": {key: 2, "other": [{key: {"inner": 3}}]}}
    told = config_of(options)
    assert told["plain"] == 1
    assert told["dense_for"] == [[key, 2], ["other", [[[key, {"inner": 3}]]]]]
    experiment = Experiment("keys", save_git_info=False)
    experiment.add_config(told)
    experiment.main(lambda _run: None)
    assert experiment.run(options={"--force": True}).config["dense_for"] == told["dense_for"]


def test_keys_that_databases_hold_stay_as_they_are():
    assert config_of({"a-b": {"ü": [1, {"c_1": None}]}}) == {"a-b": {"ü": [1, {"c_1": None}]}}


def test_the_commit_of_a_project_that_only_holds_the_installed_package_is_not_ours(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (tmp_path / "own.py").write_text("")
    subprocess.run([*git, "add", "own.py"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "own"], check=True)
    installed = tmp_path / "venv" / "gapbench"
    shutil.copytree(PACKAGE, installed)
    assert git_state(installed) == (None, None)
    subprocess.run([*git, "add", "venv"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "ours"], check=True)
    commit, dirty = git_state(installed)
    assert commit is not None and len(commit) == 40 and dirty is False


@pytest.mark.slow
def test_processes_of_trials_import_nothing_from_the_current_folder(tmp_path):
    for name in ("cloudpickle", "sacred", "gapbench"):
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path}/ran-{name}', 'w')\n")
    script = Path(sys.executable).with_name("gapbench")
    words = ["run", ABLATIONS / "partitions.yaml", "--scale", "smoke", "--seeds", "1",
             "--only", "partitions=2", "--branches", "2",
             "--executor", "local"]  # fmt: skip
    done = subprocess.run([script, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("ran-*")) == []
