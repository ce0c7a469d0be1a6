"""The commands beside run: reports and their check, data, and what a machine lacks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.errors import NotInstalled
from gapbench.tasks.task import tasks
from tests.runs import ABLATIONS


def workplace(place, monkeypatch, **ablations):
    """Go to a folder with copies of ablations, by the names that their files have there."""
    shutil.copytree(ABLATIONS.parent / "baselines", place / "baselines")
    shutil.copy(ABLATIONS.parent / "scales.yaml", place)
    (place / "ablations").mkdir()
    for name, original in ablations.items():
        shutil.copy(ABLATIONS / f"{original}.yaml", place / "ablations" / f"{name}.yaml")
    monkeypatch.chdir(place)


def test_a_report_has_a_page_and_goes_where_git_keeps_nothing(tmp_path, capsys):
    at = ["--scale", "smoke", "--results", str(tmp_path)]
    restart = str(ABLATIONS / "restart.yaml")
    assert main(["report", restart, *at]) == 0
    page = tmp_path / "reports" / "smoke" / "restart" / "index.html"
    assert f"page: {page}" in capsys.readouterr().out
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    assert main(["report", restart, *at, "--seeds", "1"]) == 0
    assert "cannot be used: 1, such as runs/notes: no trial.json" in capsys.readouterr().err
    assert main(["report", restart, "--results", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    ignored = (ABLATIONS.parent / ".gitignore").read_text().splitlines()
    assert {"results/runs/", "results/reports/"} <= set(ignored)


def test_a_page_of_every_ablation_is_made_where_none_is_named(tmp_path, capsys, monkeypatch):
    workplace(tmp_path, monkeypatch, restart="restart", distribution="distribution")
    assert main(["report", "--scale", "smoke"]) == 0
    page = Path("results/reports/smoke/index.html")
    told = capsys.readouterr().out
    assert f"page: {page}" in told
    assert "restart: no trial has completed at scale smoke" in told and "━" not in told
    assert "ablation-restart" in page.read_text() and "ablation-distribution" in page.read_text()
    monkeypatch.chdir(tmp_path / "results")
    for command in ("report", "publish", "claims"):
        assert main([command]) == 2
        assert "no ablation here" in capsys.readouterr().err


def test_what_is_published_is_reported_and_checked_without_run_folders(
    tmp_path, capsys, monkeypatch
):
    """As in a clone."""
    workplace(tmp_path, monkeypatch, partitions="partitions", distribution="distribution")
    folder = Path("results/mini/partitions")
    shutil.copytree(ABLATIONS.parent / folder, folder)
    assert main(["publish", "ablations/partitions.yaml"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [Path(line).name for line in told] == [
        "trials.jsonl", "table.md", "accuracy_vs_partitions.svg", "layer_density.svg", "README.md"
    ]  # fmt: skip
    for path in (folder / "trials.jsonl", folder / "table.md"):
        assert path.read_bytes() == (ABLATIONS.parent / path).read_bytes()
    assert main(["report", "--check"]) == 0
    told = capsys.readouterr().out
    assert f"{folder}: matches trials.jsonl" in told
    assert "results/mini/distribution: nothing is published" in told
    assert main(["report", "ablations/partitions.yaml"]) == 0
    assert "C-GaP" in capsys.readouterr().out
    report = Path("results/reports/mini/partitions")
    # what has not run stands in the report alone
    told, published = (
        set(re.findall(r"[\d.+-]+ ± [\d.]+", (place / "table.md").read_text()))
        for place in (report, folder)
    )
    assert published <= told and len(published) > 4
    assert (report / "figures" / "accuracy_vs_partitions.svg").is_file()


@pytest.mark.parametrize("name", ["table.md", "trials.jsonl", "../README.md"])
def test_what_is_not_what_its_trials_give_is_found(tmp_path, capsys, monkeypatch, name):
    workplace(tmp_path, monkeypatch, partitions="partitions")
    folder = Path("results/mini/partitions")
    shutil.copytree(ABLATIONS.parent / folder, folder)
    assert main(["publish", "ablations/partitions.yaml"]) == 0
    path = folder / name
    text = path.read_text()
    path.write_text(
        "typed by hand" if path.suffix == ".md" else text[: text.rindex("\n", 0, -1) + 1]
    )
    assert main(["report", "--check"]) == 1
    told = capsys.readouterr().out
    assert f"{path.resolve().relative_to(tmp_path.resolve()).parent}" in told
    assert "differs from trials.jsonl" in told
    path.unlink()
    code = main(["report", "--check"])
    assert code == (2 if path.suffix == ".jsonl" else 1)
    assert main(["report", "--check", "--seeds", "1"]) == 2
    assert "--check: compares whole" in capsys.readouterr().err
    assert main(["report", "--check", "--results", "nowhere"]) == 2
    assert "nowhere/mini: nothing is published" in capsys.readouterr().err


def test_files_without_what_is_asked_for_are_left_out_unless_they_are_named(
    tmp_path, capsys, monkeypatch
):
    workplace(tmp_path, monkeypatch, restart="restart", distribution="distribution")
    assert main(["report", "--scale", "smoke", "--only", "rigl"]) == 0
    told = capsys.readouterr()
    assert "left out: ablations/restart.yaml: no trial matches --only rigl" in told.err
    assert "report: results/reports/smoke/distribution" in told.out
    assert main(["report", "ablations/restart.yaml", "--scale", "smoke", "--only", "rigl"]) == 2


def test_two_ablations_of_one_name_are_refused(tmp_path, capsys, monkeypatch):
    workplace(tmp_path, monkeypatch, mine="restart", restart="restart")
    for command in (["report"], ["report", "--check"], ["publish"], ["claims"]):
        assert main(command) == 2
        told = "name: 'restart' is also the name in ablations/mine.yaml: choose another name"
        assert capsys.readouterr().err == f"gapbench: ablations/restart.yaml: {told}\n"


def test_lines_are_not_lost_where_the_package_of_their_rows_is_missing(
    tmp_path, capsys, monkeypatch
):
    def missing():
        raise NotInstalled("fairseq is not installed")

    workplace(tmp_path, monkeypatch, translation="translation")
    shutil.copy(ABLATIONS.parent / "scales_translation.yaml", tmp_path)
    folder = Path("results/mini/translation")
    shutil.copytree(ABLATIONS.parent / folder, folder)
    before = (folder / "trials.jsonl").read_bytes()
    monkeypatch.setattr(tasks["docs_en_de"], "require", missing)
    assert main(["publish", "ablations/translation.yaml"]) == 2
    assert "fairseq is not installed" in capsys.readouterr().err
    assert main(["publish"]) == 0
    assert "left out: " in capsys.readouterr().err
    assert (folder / "trials.jsonl").read_bytes() == before
    assert main(["report", "--check"]) == 0


def test_the_doctor_looks_for_data_and_fetches_none(tmp_path, capsys, monkeypatch):
    if Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("the system has the data")
    for name in ("GAPBENCH_DATA", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    main(["doctor", "--results", str(tmp_path / "results")])
    assert "optional fashion_mnist: no data here yet" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_data_are_prepared_for_all_options_of_a_task(tmp_path, capsys, monkeypatch):
    prepared = []
    monkeypatch.setattr(
        tasks["fashion_mnist"], "prepare", lambda task, data: prepared.append(task.train_examples)
    )
    file = tmp_path / "ablation.yaml"
    rows = "[{method: dense, task: fashion_mnist, task_options: {train_examples: [500, 600]}}]"
    file.write_text(f"name: mine\nquestion: why?\nscales: {{mini: }}\ntrials: {rows}\n")
    assert main(["prepare", str(file)]) == 0
    assert prepared == [500, 600]
    told = capsys.readouterr().out.splitlines()
    assert "train_examples=600" in told[1] and told[1].endswith(": the data are ready")


def test_a_report_of_what_needs_a_missing_package_says_so(tmp_path, capsys, monkeypatch):
    def missing():
        raise NotInstalled("fairseq is not installed")

    monkeypatch.setattr(tasks["docs_en_de"], "require", missing)
    file = str(ABLATIONS / "translation.yaml")
    assert main(["report", file, "--scale", "smoke", "--results", str(tmp_path)]) == 2
    assert "fairseq is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "status", "report", "cancel"])
def test_what_no_method_can_do_is_refused_by_whoever_is_given_it(tmp_path, capsys, command):
    file = str(ABLATIONS / "partitions.yaml")
    given = ["--set", "partitions=99", "--only", "c_gap", "--scale", "smoke"]
    assert main([command, file, *given, "--results", str(tmp_path)]) == 2
    message = "--set: partitions: 99 is not possible with 9 prunable layers: give 1 to 9"
    assert capsys.readouterr().err.count(message) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_is_named_where_a_trial_could_not_write_it_down(tmp_path):
    """Tried on a small disk of its own, in a namespace of mounts."""
    script = (
        'mount -t tmpfs -o size=300k tmpfs "$1" && "$2" -m gapbench run "$3" --scale smoke '
        '--seeds 1 --only method=rigl --results "$1/results"; '
        '"$2" -m gapbench status --results "$1/results"'
    )
    words = [tmp_path, sys.executable, ABLATIONS / "partitions.yaml"]
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *words]
    told = subprocess.run(namespace, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in told.stderr
    assert told.stderr.startswith("gapbench: ")
    assert told.stderr.endswith("No space left on device\n") and told.stderr.count("\n") == 1
    assert ": lost: its disk is full\n" in told.stdout
