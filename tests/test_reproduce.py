"""A trial that is run again gives the same bits, and one that was changed is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from gapbench.__main__ import main
from gapbench.base.documents import write_json
from gapbench.runs.store import RunFolder
from tests.runs import attempt, entry, prepared

EXECUTOR = ["--executor", "debug"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A completed smoke trial."""
    folder = prepared(tmp_path_factory.mktemp("done"), entry(only="c_gap"))
    assert attempt(folder) == "completed"
    return folder


def results_of(folder: RunFolder) -> Path:
    return folder.path.parent.parent


def copied(folder: RunFolder, to: Path) -> RunFolder:
    shutil.copytree(results_of(folder), to, dirs_exist_ok=True)
    return RunFolder(to / "runs" / folder.path.name)


def reproduced(capsys: pytest.CaptureFixture[str], results: Path, key: str) -> tuple[int, str]:
    code = main(["reproduce", key, "--results", str(results), *EXECUTOR])
    told = capsys.readouterr()
    return code, told.out + told.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_trial_that_is_run_again_is_equal_and_leaves_nothing(done, capsys):
    results = results_of(done)
    before = contents(results)
    code, told = reproduced(capsys, results, done.path.name[:6])
    assert code == 0, told
    assert "lines of history" in told and "tensors" in told and "different" not in told
    assert contents(results) == before


def test_what_was_changed_is_found_with_its_likely_cause(done, tmp_path, capsys):
    folder = copied(done, tmp_path)
    result = json.loads(folder.result.read_text())
    result["metrics"]["test/accuracy"] += 0.5
    del result["metrics"]["test/loss"]
    result["environment"]["torch"] = "1.0"
    write_json(folder.result, result)
    lines = folder.history.read_text().splitlines()
    folder.history.write_text("\n".join([*lines[:-1], lines[-1].replace("e", "E")]) + "\n")
    model = torch.load(folder.model, weights_only=True)
    name = next(iter(model["model"]))
    model["model"][name].view(-1)[3] += 1e-6
    torch.save(model, folder.model)
    code, told = reproduced(capsys, tmp_path, folder.path.name)
    assert code == 1
    assert "different: test/accuracy: " in told and "(-0.5)" in told
    assert "different: test/loss: None there, " in told
    assert f"different: history.jsonl: line {len(lines)}\n" in told
    assert f"different: model/{name}: 1 of " in told
    assert "likely cause: torch: 1.0 there" in told
    (kept,) = (tmp_path / "runs").glob(".reproduce-*")
    assert f"the second run is kept: {kept}" in told


@pytest.mark.slow
def test_without_its_folder_a_trial_is_that_of_its_published_line(done, tmp_path, capsys):
    folder = copied(done, tmp_path)
    main_file = str(Path(__file__).parent.parent / "ablations" / "main.yaml")
    at = ["--scale", "smoke", "--results", str(tmp_path)]
    assert main(["publish", main_file, *at]) == 0
    published = tmp_path / "smoke" / "main" / "trials.jsonl"
    shutil.rmtree(folder.path)
    capsys.readouterr()
    code, told = reproduced(capsys, tmp_path, folder.path.name)
    assert code == 0, told
    assert "trials.jsonl" in told and "by their digests" in told
    line = published.read_text()
    seed, metric = line.replace('"seed":0', '"seed":1'), line.replace('"test/', '"toast/')
    for changed in (seed, metric, "{}\n"):
        published.write_text(changed)
        code, told = reproduced(capsys, tmp_path, folder.path.name)
        assert code == 2 and told.count("\n") == 1
        assert f"{published}:1: not a published trial: " in told


def test_what_cannot_be_run_again_is_refused_in_one_line(done, tmp_path, capsys):
    folder = copied(done, tmp_path)
    folder.result.unlink()
    for key, words in [
        ("", "no result to compare with"),
        ("no-such-key", "no-such-key"),
    ]:
        code, told = reproduced(capsys, tmp_path, key)
        assert code == 2 and words in told and told.count("\n") == 1
    code, told = reproduced(capsys, tmp_path / "nowhere", "a")
    assert code == 2 and not (tmp_path / "nowhere").exists()
