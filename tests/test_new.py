"""`gapbench new ablation NAME` writes a file that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.spec.ablation import read


def test_a_new_ablation_can_be_run_at_each_of_its_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "ablation", "mine"]) == 0
    assert (
        capsys.readouterr().out == "mine.yaml: run it with `gapbench run mine.yaml --scale smoke`\n"
    )
    spec = read(Path("mine.yaml")).spec
    assert spec.name == "mine" and list(spec.scales) == ["smoke", "mini"]
    for scale in spec.scales:
        assert main(["run", "mine.yaml", "--scale", scale, "-n"]) == 0
        assert "C-GaP" in capsys.readouterr().out


def test_a_new_ablation_goes_where_ablations_are_and_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ablations").mkdir()
    assert main(["new", "ablation", "mine"]) == 0
    path = Path("ablations/mine.yaml")
    path.write_text("kept")
    capsys.readouterr()
    assert main(["new", "ablation", "mine"]) == 2
    assert capsys.readouterr().err == f"gapbench: {path}: exists already: choose another name\n"
    assert path.read_text() == "kept"


@pytest.mark.parametrize("name", ["Mine", "../mine", "a b", ""])
def test_a_name_that_no_ablation_may_have_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "ablation", name]) == 2
    told = capsys.readouterr().err
    assert told.startswith("gapbench: name: ") and told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
