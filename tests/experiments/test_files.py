"""The ablations and baselines that come with the project, each at each of its scales."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gapbench.errors import NotInstalled, UserError
from gapbench.report.section import require_section
from gapbench.spec.ablation import read
from gapbench.spec.dry_run import dry_run
from gapbench.spec.editors import json_schema
from gapbench.spec.grid import expand
from gapbench.spec.schema import SCALES

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("ablations/*.yaml"), *ROOT.glob("baselines/*.yaml")])
PUBLISHED = ROOT / "gapbench/report/published.csv"


def entries_of(file, scale, **picks):
    """Expand a file; skip where all of its rows need fairseq and it is not installed."""
    try:
        return expand(read(file), scale, **picks)
    except NotInstalled as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_named_after_its_ablation_and_has_every_scale(file):
    ablation = read(file)
    assert ablation.name == file.stem
    assert tuple(ablation.scales) == SCALES


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_can_be_run_dry_at_every_scale(file, scale):
    outlooks = dry_run(entries_of(file, scale))
    labels = [outlook.label for outlook in outlooks]
    assert len(set(labels)) == len(labels)
    json.dumps([outlook.as_dict() for outlook in outlooks], allow_nan=False)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
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
    entries = expand(partitions, "mini", seeds=(0,), only=["image"])
    found = {
        (e.trial.method, e.trial.options.get("partitions"), e.trial.plan.epochs) for e in entries
    }
    gap = {("c_gap", kappa, 32) for kappa in (1, 2, 4, 8)}
    assert found == {("dense", None, 32), ("rigl", None, 32)} | gap
    assert len(expand(partitions, "mini", only=["image"])) == 6 * len(entries)


def test_the_partitions_ablation_has_its_transformer_rows_at_mini(fairseq):
    entries = expand(read(ROOT / "ablations/partitions.yaml"), "mini", only=["translation"])
    assert {entry.trial.task for entry in entries} == {"docs_en_de"}
    found = {(e.trial.method, e.trial.options.get("partitions"), e.trial.seed) for e in entries}
    kappas = [("dense", None), *(("c_gap", kappa) for kappa in (1, 3, 6))]
    assert found == {(*row, seed) for row in kappas for seed in (0, 1, 2)}


@pytest.mark.parametrize("name", ["main", "partitions", "strategy", "translation"])
@pytest.mark.parametrize("scale", SCALES)
def test_transformer_rows_are_picked_by_their_kind(name, scale, fairseq):
    file = read(ROOT / f"ablations/{name}.yaml")
    rows = expand(file, scale, only=["translation"], seeds=(0,))
    others = [] if name == "translation" else expand(file, scale, only=["image"], seeds=(0,))
    task = "wmt14_en_de" if scale == "paper" else "docs_en_de"
    assert {entry.trial.task for entry in rows} == {task}
    assert len(expand(file, scale, seeds=(0,))) == len(rows) + len(others)


def test_transformer_big_is_pruned_in_96_tensors_and_density_counts_the_whole_model(fairseq):
    entries = expand(read(ROOT / "ablations/partitions.yaml"), "paper", only=["translation"])
    outlooks = [outlook for outlook in dry_run(entries) if outlook.method == "c_gap"]
    assert {outlook.partitions for outlook in outlooks} == {1, 3, 6}
    for outlook in outlooks:
        assert outlook.layers == 96
        assert (outlook.prunable_parameters, outlook.parameters) == (176_160_768, 210_882_560)
        assert outlook.prunable_density == pytest.approx(0.1, abs=1e-6)
        kept = 1 - 0.9 * 176_160_768 / 210_882_560
        assert outlook.model_density == pytest.approx(kept, abs=1e-6)


def published_outlooks(task, rows_at_least):
    with PUBLISHED.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    assert len(rows) >= rows_at_least
    kind = "image" if task == "imagenet" else "translation"
    outlooks = {}
    for file in ROOT.glob("ablations/*.yaml"):
        with contextlib.suppress(UserError):  # some have rows of one kind alone
            chosen = expand(read(file), "paper", seeds=(0,), only=[kind])
            outlooks[file.stem] = dry_run(chosen)
    everything = [outlook for some in outlooks.values() for outlook in some]
    return [(row, outlooks.get(row["table"], everything)) for row in rows]


def test_every_published_row_has_its_trials_at_the_papers_scale():
    for row, there in published_outlooks("imagenet", 31):
        assert any(_is(outlook, row) for outlook in there), row


def test_every_published_row_of_the_transformer_has_its_trials(fairseq):
    for row, there in published_outlooks("wmt14_en_de", 13):
        assert any(_is(outlook, row) for outlook in there), row


def _is(outlook, row):
    wanted = {key: row[key] for key in ("task", "method", "distribution", "strategy") if row[key]}
    numbers = {"sparsity": float(row["sparsity"])}
    if row["partitions"]:
        numbers["partitions"] = int(row["partitions"])
    given = {key: getattr(outlook, key) for key in (*wanted, *numbers)}
    epochs = not row["epochs"] or str(outlook.epochs) in row["epochs"].split("/")
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
