"""The evidence that git keeps: lossless, checked, and behind what has run here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.evidence import changed, changes, path_of, published_runs, read_trials
from gapbench.base.documents import sealed
from gapbench.errors import UserError
from gapbench.report.publish import check, publish
from tests.report.folders import entry_of, result_of, trial_of, write_run, write_trial
from tests.report.test_build import ablation, entries_of


def published(results: Path, run: int = 3, **options: object) -> Path:
    publish(ablation(**options), "mini", entries_of(results, run), results, scan(results))
    return path_of(results, "mini", "partitions")


def test_a_line_holds_a_trial_and_all_that_was_measured(tmp_path: Path) -> None:
    entries = entries_of(tmp_path)
    write_run(tmp_path, trial_of(seed=9), math.nan)
    entries.append(entry_of(trial_of(seed=9), "mine"))
    found = scan(tmp_path)
    publish(ablation(), "mini", entries, tmp_path, found)
    kept = read_trials(path_of(tmp_path, "mini", "partitions"), tmp_path)
    documents = [entry.trial.document() for entry in kept.entries]
    assert documents == [json.loads(json.dumps(entry.trial.document())) for entry in entries]
    assert [entry.name for entry in kept.entries] == [*["C-GaP"] * 6, "mine"]
    assert kept.frame.to_csv() == runs_frame(entries, found).to_csv()
    for run in kept.runs:  # not the columns alone: layers, too
        assert repr(run.result) == repr(run.result | found.runs[run.trial.key].result)
    assert kept.entries[3].label == "C-GaP uniform 0.9 seed 0"


def test_a_line_leaves_out_what_an_earlier_line_has(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in published(tmp_path).read_text().splitlines()]
    first, fourth = lines[0]["trial"]["key"], lines[3]["trial"]["key"]
    assert [line.get("like") for line in lines] == [None, first, first, first, fourth, fourth]
    assert "recipe" in lines[0]["trial"]
    assert lines[3]["trial"].keys() == {"key", "plan", "options"}
    assert lines[4]["trial"].keys() == {"key", "seed"}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}),
        ({"a": {"b": 1}}, {"a": {}}),
        ({"a": {}}, {"a": {"b": {"c": None}}}),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}),
        ({"a": 3}, {"a": {"=": {"like": 3}}}),
        ({"a": {"=": 1}}, {"a": {"=": 2}}),
        ({"a": {"=": {"b": 1, "c": 1}}}, {"a": {"=": {"b": 1, "c": 2}}}),
    ],
)
def test_changes_lead_from_one_value_to_the_other(earlier: object, later: object) -> None:
    assert json.dumps(changed(earlier, changes(earlier, later))) == json.dumps(later)


@pytest.mark.parametrize("change", [{"b": 1}, {"a": {"b": 1}}, {"=": 1, "a": 2}])
def test_changes_of_values_that_are_not_there_are_refused(change: object) -> None:
    with pytest.raises(ValueError, match=r"the earlier trial has no (value|mapping)"):
        changed({"a": 3}, change)


def test_only_what_has_completed_is_published_in_the_order_of_the_ablation(tmp_path: Path) -> None:
    path = published(tmp_path, run=2)
    seeds = [run.trial.seed for run in read_trials(path, tmp_path).runs]
    assert seeds == [0, 1, 0, 1]
    assert check(tmp_path, "mini", ablation().spec) == []
    with pytest.raises(UserError, match="no trial has completed at scale small"):
        publish(ablation(), "small", [entry_of(trial_of(seed=77))], tmp_path, scan(tmp_path))
    assert not path_of(tmp_path, "small", "partitions").exists()


def test_publishing_again_keeps_lines_of_what_has_no_folder_here(tmp_path: Path) -> None:
    path = published(tmp_path)
    before = path.read_bytes()
    table = path.with_name("table.md").read_bytes()
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    entries = [entry_of(trial_of(seed=s, partitions=p)) for p in (4, 1) for s in range(3)]
    found = scan(tmp_path).beside(published_runs(tmp_path))
    publish(ablation(), "mini", entries, tmp_path, found)
    assert (path.read_bytes(), path.with_name("table.md").read_bytes()) == (before, table)


def test_a_folder_goes_before_the_line_of_the_same_trial(tmp_path: Path) -> None:
    published(tmp_path)
    failed, again = trial_of(seed=0, partitions=4), trial_of(seed=1, partitions=4)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    write_trial(tmp_path, failed)
    write_run(tmp_path, again, 50.0)
    found = scan(tmp_path).beside(published_runs(tmp_path))
    assert failed.key not in found.runs and found.states[failed.key] == "planned"
    assert found.runs[again.key].result["metrics"]["test/accuracy"] == 50.0
    assert len(found.runs) == 5


def test_at_most_two_figures_a_task_are_published_and_nothing_but_svg(tmp_path: Path) -> None:
    folder = published(
        tmp_path, figures=("accuracy_vs_partitions", "means", "coverage", "anytime")
    ).parent
    names = {path.name for path in folder.iterdir()}
    assert names == {"trials.jsonl", "table.md", "accuracy_vs_partitions.svg", "means.svg"}


def damaged(line: dict[str, object]) -> dict[str, str]:
    trial, result = dict(line["trial"]), dict(line["result"])  # type: ignore[call-overload]
    body = {name: line[name] for name in ("label", "trial", "result")}
    other = result_of(trial_of(seed=1), 80.0)
    return {
        "cut": json.dumps(line)[:-20],
        "no object": "[]",
        "flipped": json.dumps(line).replace("87.4", "87.5"),
        "another trial": json.dumps(sealed({**body, "trial": {**trial, "seed": 7}})),
        "no label": json.dumps(sealed({"trial": trial, "result": result})),
        "no metrics": json.dumps(sealed({**body, "result": {**other, "metrics": 3}})),
        "other ranks": json.dumps(sealed({**body, "result": {**result, "ranks": 5}})),
        "no plan": json.dumps(sealed({**body, "trial": {**trial, "plan": {}}})),
        "like a lost trial": json.dumps({"like": "0" * 16, "checksum": "0" * 16}),
        "like no key": json.dumps({**line, "like": [3]}),
        "another checksum": json.dumps({"like": trial.get("key"), "checksum": "0" * 16}),
        "twice": json.dumps(line),
        "another value": json.dumps({"like": trial.get("key"), "trial": {"nothing": 3}}),
    }


@pytest.mark.parametrize("kind", damaged({"trial": {}, "result": {}, "label": ""}))
def test_a_damaged_line_is_named_and_never_believed(tmp_path: Path, kind: str) -> None:
    path = published(tmp_path)
    lines = path.read_text().splitlines()
    lines[1] = damaged(json.loads(lines[0]))[kind]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"^{path}:2: not a published trial: [^\n]+$"):
        read_trials(path, tmp_path)


@pytest.mark.parametrize(("depth", "count"), [(600, 1), (1, 60_000)])
def test_a_change_of_much_is_refused_in_one_line(tmp_path: Path, depth: int, count: int) -> None:
    path = published(tmp_path)
    line = json.loads(path.read_text().splitlines()[0])
    deep = json.loads('{"a":' * depth + "1" + "}" * depth)
    line["result"]["more"] = [deep] * count if count > 1 else deep
    first = json.dumps(sealed(line))
    later = {"like": line["trial"]["key"], "label": "mine"} | (
        {"result": {"more": deep}} if depth > 1 else {}
    )
    path.write_text(f"{first}\n{json.dumps(later)}\n")
    with pytest.raises(UserError, match=rf"^{path}:2: not a published trial: [^\n]+$"):
        read_trials(path, tmp_path)


def test_a_number_that_was_changed_with_its_checksum_is_found_by_the_table(tmp_path: Path) -> None:
    path = published(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["result"]["metrics"]["test/accuracy"] += 1
    lines[0] = sealed(lines[0])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert check(tmp_path, "mini", ablation().spec) == ["table.md"]


@pytest.mark.parametrize("name", ["trials.jsonl", "table.md", "means.svg", "."])
def test_nothing_is_read_or_written_through_a_link(tmp_path: Path, name: str) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    path = published(results)
    moved = path.parent if name == "." else path.with_name(name)
    moved.rename(outside)
    moved.symlink_to(outside)
    before = [p.read_bytes() for p in sorted(outside.rglob("*") if name == "." else [outside])]
    entries = [entry_of(trial_of(seed=s, partitions=p)) for p in (4, 1) for s in range(3)]
    with pytest.raises(UserError, match="is a link"):
        publish(ablation(), "mini", entries, results, scan(results))
    after = [p.read_bytes() for p in sorted(outside.rglob("*") if name == "." else [outside])]
    assert after == before
