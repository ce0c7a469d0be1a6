from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.analysis.layout import require_section
from gapbench.errors import UserError
from gapbench.report.build import REPORTS, ReportResult, report
from gapbench.report.figures import require_figures
from gapbench.spec.ablation import Ablation
from gapbench.spec.grid import Entry
from gapbench.spec.loading import Document
from tests.report.folders import entry_of, spec_of, trial_of, write_run

TABLES = ["answers.csv", "table.csv", "table.md", "table.tex"]


def ablation(figures: tuple[str, ...] = ("means",), **report: object) -> Ablation:
    spec = spec_of(rows=["label", "partitions"], baseline={"partitions": 1}, figures=list(figures),
                   **report)  # fmt: skip
    return Ablation(spec, Document("partitions.yaml", {}, {}), (), {})


def entries_of(results: Path, run: int = 3) -> list[Entry]:
    entries = []
    for partitions in (4, 1):
        for seed in range(3):
            trial = trial_of(seed=seed, partitions=partitions)
            entries.append(entry_of(trial))
            if seed < run:
                write_run(results, trial, 87 + partitions / 10 + seed**2 / partitions)
    return entries


def make(results: Path, run: int = 3) -> ReportResult:
    return report(ablation(), "mini", entries_of(results, run), results)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_report_is_runs_tables_and_figures_in_the_folder_of_its_ablation(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert made.folder == tmp_path / "reports" / "mini" / "partitions"
    names = {str(path.relative_to(made.folder)) for path in made.paths}
    figure = {f"figures/means.{kind}" for kind in ("png", "svg", "csv")}
    assert names == {"runs.csv", *TABLES, *figure}
    assert all(path.is_file() for path in made.paths) and made.left_out == ()


def test_reporting_again_gives_the_same_bytes(tmp_path: Path) -> None:
    made = make(tmp_path)
    before = contents(made.folder)
    entries = [entry_of(trial_of(seed=s, partitions=p)) for p in (4, 1) for s in range(3)]
    for path in made.paths:
        path.unlink()
    report(ablation(), "mini", entries, tmp_path)
    assert contents(made.folder) == before


def test_what_figures_lack_is_told_each_time(tmp_path: Path) -> None:
    both = ablation(figures=("means", "branch_iou"))
    entries = entries_of(tmp_path)
    history = tmp_path / "runs" / entries[0].trial.key / "history.jsonl"
    history.write_text(history.read_text() + "damaged\n")
    first = report(both, "mini", entries, tmp_path)
    places = {left.place for left in first.left_out}
    assert places == {f"runs/{entries[0].trial.key}/history.jsonl", "partitions/figures/branch_iou"}
    assert report(both, "mini", entries, tmp_path).left_out == first.left_out


def test_a_changed_history_is_drawn_anew(tmp_path: Path) -> None:
    curves = ablation(figures=("anytime",))
    entries = entries_of(tmp_path)
    texts = {path: path.read_text() for path in tmp_path.glob("runs/*/history.jsonl")}
    for path in texts:
        path.unlink()
    made = report(curves, "mini", entries, tmp_path)
    assert not list((made.folder / "figures").glob("anytime*"))
    for path, text in texts.items():
        path.write_text(text)
    report(curves, "mini", entries, tmp_path)
    assert (made.folder / "figures" / "anytime.svg").is_file()


def test_a_figure_that_is_not_asked_for_any_more_goes(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.folder / "figures" / "means.png").unlink()  # the others go all the same
    (made.folder / "figures" / "mine.png").write_bytes(b"kept")
    entries = [entry_of(trial_of(seed=s, partitions=p)) for p in (4, 1) for s in range(3)]
    report(ablation(figures=("coverage",)), "mini", entries, tmp_path)
    names = {path.name for path in (made.folder / "figures").iterdir()}
    assert "coverage.svg" in names and "means.svg" not in names and "mine.png" in names


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    made = make(tmp_path, run=0)
    told = {left.place: left.reason for left in made.left_out}
    assert told["runs/notes"].startswith("no trial.json")
    assert "no completed trial" in told["partitions/figures/means"]


def test_json_has_every_grid_by_its_heads(tmp_path: Path) -> None:
    plain = make(tmp_path).as_dict()
    first = plain["tables"][0]["rows"][0]
    assert first["method"] == "C-GaP" and first["κ"] == "4"
    assert first["90 % sparse, published: imagenet"] == "76.3"
    assert plain["left_out"] == []


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    results = tmp_path / "results"
    (results / REPORTS / "mini").mkdir(parents=True)
    (results / REPORTS / "mini" / "partitions").symlink_to(outside)
    with pytest.raises(UserError, match="is a link"):
        make(results)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["runs.csv", "table.md", "figures", "figures/means.png"])
def test_no_file_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    results = tmp_path / "results"
    entries = entries_of(results)
    made = report(ablation(), "mini", entries, results)
    outside = tmp_path / "outside"
    (made.folder / name).rename(outside)
    (made.folder / name).symlink_to(outside)
    before = contents(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(UserError, match="is a link"):
        report(ablation(), "mini", entries, results)
    assert (contents(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_a_results_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    entries = entries_of(tmp_path)
    (tmp_path / REPORTS).write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"reports.*cannot be written"):
        report(ablation(), "mini", entries, tmp_path)


@pytest.mark.parametrize(
    ("figures", "section", "message"),
    [
        (["mean"], {}, "report.figures: unknown figure 'mean': did you mean 'means'? valid: "),
        (["means"], {"value": "test/acuracy"}, "report.value: unknown value 'test/acuracy': did"),
        (["means"], {"value": "accuracy"}, "valid: test/accuracy, test/loss, val/accuracy, val/lo"),
        (["means"], {"claims": [{"asks": "x", "better": {"partitons": 4}, "than": {}}]},
         "claims[0].better: unknown field 'partitons': did you mean 'partitions'?"),
    ],
)  # fmt: skip
def test_a_section_that_does_not_fit_is_found_before_any_trial_has_run(
    tmp_path: Path, figures: list[str], section: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=r"^partitions\.yaml: ") as error:
        require_figures(ablation(tuple(figures), **section))
        require_section(ablation(tuple(figures), **section), entries_of(tmp_path, run=0))
    assert message in str(error.value)


def test_a_setting_that_differs_within_a_cell_is_found_before_any_trial_has_run() -> None:
    entries = [entry_of(trial_of(partitions=4, epochs=epochs)) for epochs in (60, 61)]
    with pytest.raises(
        UserError, match=r"report\.rows: .* differ in epochs \(60, 61\): add epochs"
    ):
        require_section(ablation(), entries)
