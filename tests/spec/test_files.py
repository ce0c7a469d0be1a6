"""The ablations and baselines that come with the project, each at each of its scales."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gapbench.analysis.layout import require_section
from gapbench.analysis.published import published_times
from gapbench.errors import NotInstalled
from gapbench.plan.phases import UNSTRUCTURED
from gapbench.spec.ablation import read
from gapbench.spec.dry_run import dry_run
from gapbench.spec.editors import json_schema
from gapbench.spec.grid import expand

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("ablations/*.yaml"), *ROOT.glob("baselines/*.yaml")])
SCALES = ("smoke", "mini", "small", "paper")
PLACES = [
    pytest.param(file, scale, id=f"{file.stem}-{scale}")
    for file in FILES
    for scale in read(file).scales
]
PUBLISHED = ROOT / "gapbench/analysis/published.csv"


def entries_of(file, scale, **picks):
    """Expand a file; skip where all of its rows need fairseq and it is not installed."""
    try:
        return expand(read(file), scale, **picks)
    except NotInstalled as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_named_after_its_ablation_and_has_the_four_usual_scales(file):
    ablation = read(file)
    assert ablation.name == file.stem
    assert [name for name in ablation.scales if "cifar" not in name] == list(SCALES)


@pytest.mark.parametrize(("file", "scale"), PLACES)
def test_a_file_can_be_run_dry_at_every_scale(file, scale):
    forecasts = dry_run(entries_of(file, scale))
    labels = [forecast.label for forecast in forecasts]
    assert len(set(labels)) == len(labels)
    json.dumps([forecast.as_dict() for forecast in forecasts], allow_nan=False)


@pytest.mark.parametrize(("file", "scale"), PLACES)
def test_a_file_can_be_reported_at_every_scale(file, scale):
    require_section(read(file), entries_of(file, scale))


@pytest.mark.parametrize("scale", SCALES)
def test_baselines_are_the_same_trials_in_every_ablation(scale):
    own = {
        entry.trial.key
        for file in ROOT.glob("baselines/*.yaml")
        for entry in expand(read(file), scale)
    }
    shared = set()
    for name in ("partitions", "budget", "main"):
        methods = "dense,rigl"
        entries = expand(read(ROOT / f"ablations/{name}.yaml"), scale, only=[methods])
        keys = {entry.trial.key for entry in entries}
        shared = keys & shared if shared else keys
    assert shared & own


def test_the_partitions_ablation_has_its_rows_at_mini():
    partitions = read(ROOT / "ablations/partitions.yaml")
    entries = expand(partitions, "mini", seeds=(0,))
    found = {
        (e.trial.method, e.trial.options.get("partitions"), e.trial.plan.epochs) for e in entries
    }
    gap = {("c_gap", kappa, 99) for kappa in (1, 2, 4, 8)}
    assert found == {("dense", None, 25), ("rigl", None, 10), ("rigl", None, 120)} | gap
    assert len(expand(partitions, "mini")) == 6 * len(entries)


@pytest.mark.parametrize("scale", ["mini", "small"])
def test_rows_have_the_proportions_of_the_papers_tables(scale):
    entries = expand(read(ROOT / "ablations/main.yaml"), scale, only=["distribution=uniform,dense"])
    forecasts = dry_run(
        [e for e in entries if e.trial.seed == 0 and e.trial.pattern == UNSTRUCTURED]
    )
    found = {}
    for forecast in forecasts:
        found.setdefault(forecast.method, set()).add(forecast.times)
    paper = {"dense": {2.5}, "rigl": {1, 5, 12}, "c_gap": {9.9}, "p_gap": {11.1}}
    assert {method: found[method] for method in paper} == paper
    for method, times in paper.items():
        told = {published_times("fashion_mnist", method, each) for each in times}
        assert told == {f"{each:g}" for each in times}
    assert published_times("docs_en_de", "rigl", 1.0) == ""
    plans = {e.trial.method: e.trial.plan for e in entries}
    cyclic, parallel = plans["c_gap"].parts, plans["p_gap"].parts
    assert [part.epochs for part in cyclic] == [3] * 28 + [15]
    assert [len(part.branches) for part in parallel[:-1]] == [4] * 8 and parallel[-1].epochs == 15
    # the fine-tune's share: 150 of 990 and of 1110 epochs there
    assert parallel[-1].epochs == cyclic[-1].epochs == 15 and plans["p_gap"].wall_epochs == 39


def test_the_translation_ablation_has_its_rows_at_mini(fairseq):
    entries = expand(read(ROOT / "ablations/translation.yaml"), "mini", seeds=(0,))
    assert {entry.trial.task for entry in entries} == {"docs_en_de"}
    found = {(e.trial.method, e.trial.options.get("partitions")) for e in entries}
    kappas = {("c_gap", 1), ("c_gap", 3), ("c_gap", 6), ("p_gap", 3), ("p_gap", 6)}
    assert found == {(name, None) for name in ("dense", "prune_from_dense", "rigl")} | kappas
    assert {e.trial.options.get("strategy") for e in entries} == {None, "cyclic", "random"}


def test_transformer_big_is_pruned_in_96_tensors_and_density_counts_the_whole_model(fairseq):
    entries = expand(read(ROOT / "ablations/translation.yaml"), "paper", seeds=(0,))
    forecasts = [forecast for forecast in dry_run(entries) if forecast.method == "c_gap"]
    assert {forecast.partitions for forecast in forecasts} == {1, 3, 6}
    for forecast in forecasts:
        assert forecast.layers == 96
        assert (forecast.prunable_parameters, forecast.parameters) == (176_160_768, 210_882_560)
        assert forecast.prunable_density == pytest.approx(1 - forecast.sparsity, abs=1e-6)
        kept = 1 - forecast.sparsity * 176_160_768 / 210_882_560
        assert forecast.model_density == pytest.approx(kept, abs=1e-6)


def published_rows(task):
    with PUBLISHED.open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["task"] == task]


@pytest.mark.parametrize(
    ("task", "scale", "count"),
    [("imagenet", "paper", 32), ("wmt14_en_de", "paper", 13), ("cifar10", "cifar10", 8)],
)
def test_every_published_row_has_its_trials(task, scale, count, fairseq):
    rows = published_rows(task)
    assert len(rows) >= count
    forecasts = [
        forecast
        for file in FILES
        if scale in (ablation := read(file)).scales
        for forecast in dry_run(expand(ablation, scale, seeds=(0,)))
    ]
    for row in rows:
        assert any(_is(forecast, row) for forecast in forecasts), row


def _is(forecast, row):
    wanted = {key: row[key] for key in ("task", "method", "distribution", "strategy") if row[key]}
    numbers = {"sparsity": float(row["sparsity"])}
    if row["partitions"]:
        numbers["partitions"] = int(row["partitions"])
    given = {key: getattr(forecast, key) for key in (*wanted, *numbers)}
    epochs = not row["epochs"] or str(forecast.epochs) in row["epochs"].split("/")
    return given == {**wanted, **numbers} and epochs


def test_the_schema_for_editors_is_up_to_date():
    file = ROOT / "ablations/schema.json"
    told = "run: gapbench schema > ablations/schema.json"
    assert json.loads(file.read_text()) == json_schema(), told


def test_the_schema_for_editors_knows_options_and_refuses_other_keys():
    schema = json_schema()
    row = schema["$defs"]["Row"]
    assert row["additionalProperties"] is False
    assert {"method", "sparsity", "zip", "partitions", "epochs"} <= set(row["properties"])
    assert "options" not in row["properties"]
    assert "$ref" in row["properties"]["partitions"]
    assert "lr" in schema["$defs"]["Recipe"]["properties"]
    assert "label" not in schema["$defs"]["ScaleSettings"]["properties"]


def test_every_file_points_editors_to_the_schema():
    for file in FILES:
        mark, _, place = file.read_text().splitlines()[0].partition("$schema=")
        assert mark == "# yaml-language-server: "
        assert (file.parent / place).resolve() == ROOT / "ablations/schema.json"


def test_reading_an_ablation_needs_no_torch():
    code = (
        "import sys; from pathlib import Path; "
        "import gapbench.spec.grid, gapbench.spec.dry_run; "
        "from gapbench.spec.ablation import read; "
        "read(Path('ablations/main.yaml')); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
