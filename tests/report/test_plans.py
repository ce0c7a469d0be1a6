"""Plans as drawings of text."""

from __future__ import annotations

import pytest

from gapbench.__main__ import main
from gapbench.methods.method import methods
from gapbench.plan.phases import Layer, Parallel, Phase, Plan
from gapbench.report.plans import plan_lines

LAYERS = tuple(Layer(name, (4, 4)) for name in ("a", "b", "c"))


def states(plan: Plan, width: int = 10 + len("a +99 ")) -> list[str]:
    *lines, _ = plan_lines(plan, LAYERS, width)
    return [line[6:] for line in lines]


def test_a_line_shows_when_layers_are_dense() -> None:
    plan = Plan((Phase(2, grow=frozenset("a")), Phase(3, grow=frozenset("bc")), Phase(5)))
    lines = plan_lines(plan, LAYERS, 16)
    assert lines[0] == "a     ██········"
    assert lines[1] == "b +1  ··███·····"
    assert lines[2] == "      0" + "10 epochs".rjust(9)


def test_branches_of_a_round_are_side_by_side_and_named() -> None:
    branches = (Phase(2, grow=frozenset("a")), Phase(3, grow=frozenset("b")))
    plan = Plan((Parallel(branches), Phase(2)), initial="random")
    assert states(plan) == ["1111······", "222222····", "··········"]


def test_long_plans_are_squeezed_and_short_ones_stretched() -> None:
    long = Plan((Phase(60, grow=frozenset("abc")), Phase(40)))
    assert states(long) == ["██████····"]
    short = Plan((Phase(1, grow=frozenset("abc")), Phase(1)))
    assert states(short) == ["█████·····"]


def test_the_command_draws_any_method_of_an_ablation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "p_gap", "ablations/main.yaml", "--scale", "smoke"]) == 0
    told = capsys.readouterr().out
    assert "P-GaP uniform 0.9 seed 0: 6 machine-epochs" in told
    assert "1111" in told and "4444" in told
    assert main(["explain", "rigl", "ablations/main.yaml", "--scale", "smoke"]) == 0
    assert "▒▒▒▒▒▒" in capsys.readouterr().out
    assert main(["explain", "rigll", "ablations/main.yaml"]) == 2
    assert "unknown method 'rigll': did you mean 'rigl'?" in capsys.readouterr().err


def test_a_method_of_a_plug_in_is_drawn_and_the_suite_is_there_in_any_folder(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "c_gap", "--scale", "smoke"]) == 0
    assert "C-GaP" in capsys.readouterr().out
    (tmp_path / "explained.py").write_text(
        "from gapbench.methods.method import method\n"
        "from gapbench.plan.phases import Phase, Plan\n"
        "@method('explained', label='Explained')\n"
        "def explained(layers, epochs, rng):\n"
        "    return Plan((Phase(epochs),), 'random')\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nquestion: '?'\nplugins: [explained.py]\n"
        "scales: {smoke: {task: digits, epochs: 6, sparsity: 0.9}}\n"
        "trials: [{method: explained}]\n"
    )
    monkeypatch.setenv("GAPBENCH_PLUGINS", "")  # `plugins:` adds to it
    try:
        assert main(["explain", "explained", "mine.yaml", "--scale", "smoke"]) == 0
        assert "Explained uniform 0.9 seed 0: 6 machine-epochs" in capsys.readouterr().out
    finally:
        methods._entries.pop("explained")
