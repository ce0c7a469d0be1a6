"""docs/claims.md is what the claims, the published values and the committed reports give."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.analysis.published import published_pairs
from gapbench.report.claims import claims_text
from gapbench.spec.ablation import read
from tests.runs import ABLATIONS

ROOT = ABLATIONS.parent
DOCUMENT = ROOT / "docs" / "claims.md"


def test_the_document_is_what_the_reports_give(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["claims"]) == 0
    made = capsys.readouterr().out
    assert DOCUMENT.read_text(encoding="utf-8") == made, "run: gapbench claims > docs/claims.md"


def test_every_file_that_the_document_names_exists():
    text = DOCUMENT.read_text(encoding="utf-8")
    named = re.findall(r"(?:ablations|tests|gapbench|docs)/[\w/]*\w(?:\.\w+)?", text)
    assert len(set(named)) >= 10
    for name in named:
        assert (ROOT / name).exists(), name


def test_every_claim_of_a_paper_has_published_values_beside_it():
    for file in sorted(ABLATIONS.glob("*.yaml")):
        for claim in read(file).spec.claims:
            assert (claim.source is None) or published_pairs(claim), claim.asks


@pytest.mark.parametrize("value", [81.0, 60.0])
def test_what_was_measured_comes_from_what_is_published(tmp_path, monkeypatch, value, capsys):
    from tests.report.folders import write_run

    for name in ("ablations", "baselines"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in ROOT.glob("scales*.yaml"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    from gapbench.spec.selection import expanded

    file = Path("ablations/restart.yaml")
    for entry in expanded(file, "mini", (), (), "2")[2]:
        restarts = entry.trial.options["restart"]
        write_run(tmp_path / "results", entry.trial, value + entry.trial.seed if restarts else 70.0)
    assert main(["publish", str(file)]) == 0
    capsys.readouterr()
    text = claims_text(Path("results"), {file: read(file).spec})
    assert "- mini, fashion\\_mnist: **" in text and f"{value + 0.5 - 70.0:+.2f} ± 6.35" in text
    assert "- small: **not run**" in text
