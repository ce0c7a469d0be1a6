"""From outside of the package: scale, task with a colour data set, model, methods, and patterns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MODEL = """
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))
"""
TASK = """
from my_model import Tiny

from gapbench.tasks.classification import InMemoryImages
from gapbench.tasks.task import Recipe, task


@task("stripes", version=1)
class Stripes(InMemoryImages):
    size, channels, train_examples = 12, 3, 96
    recipe = Recipe(epochs=4, batch_size=16, lr=0.1)

    def build_model(self):
        return Tiny()

    def read(self):
        from gapbench.compat.torchvision_ops import load_torchvision
        from gapbench.tasks.images.memory import labelled, split_off

        fake = load_torchvision("torchvision.datasets").FakeData
        train, test = (fake(size, (3, 12, 12), 4) for size in (128, 64))
        return {**split_off(labelled(train), 32), "test": labelled(test)}
"""
METHOD = """
from dataclasses import dataclass

import torch

from gapbench.methods.method import method
from gapbench.plan.phases import Phase, Plan
from gapbench.plan.update import Update, update
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.sparsity.masks import top_mask
from gapbench.sparsity.pattern import Pattern, pattern
from gapbench.sparsity.score import score


@score("smallest_gradient")
def smallest_gradient(inputs):
    return None if inputs.gradient is None else -inputs.gradient.abs()


@method("mine", label="Mine", small={"share": 0.4})
def mine(layers, epochs, rng, *, share: float = 0.5):
    update = DropGrow("smallest_gradient", every=4, alpha=share, drop="random")
    return Plan((Phase(epochs, update=update, label="s"),), initial="random")


@update("burst")
@dataclass(frozen=True)
class Burst(Update):
    every: int = 3
    size: float = 0.5
    kind: str = "burst"

    def due(self, step, steps):
        return step == self.every

    def change(self, masks, step, steps):
        masks.drop_and_grow(self.size, "magnitude", "random")


@update("shifting")
@dataclass(frozen=True)
class Shifting(Update):
    every: int = 3
    kind: str = "shifting"
    budget = "total"

    def due(self, step, steps):
        return step > 0 and step % self.every == 0

    def change(self, masks, step, steps):
        means, active, sizes = masks.mean_score("magnitude"), masks.active(), masks.sizes()
        poor, rich = min(means, key=means.get), max(means, key=means.get)
        moved = min(2, active[poor] - 1, sizes[rich] - active[rich])
        keep = {poor: active[poor] - moved, rich: active[rich] + moved}
        masks.resize_to(keep, "magnitude", "random")


@method("shifting", label="Shifting")
def shifting(layers, epochs, rng, *, every: int = 3):
    return Plan((Phase(epochs, update=Shifting(every), label="s"),), initial="random")


@pattern("pairs")
class Pairs(Pattern):
    def misfit(self, layer, keep):
        return "it is odd" if layer.numel % 2 else "too many" if keep > layer.numel // 2 else None

    def select(self, scores, count, kept=None):
        pairs = scores.reshape(-1, 2)
        old = torch.zeros_like(pairs).bool() if kept is None else kept.reshape(-1, 2)
        larger = torch.zeros_like(old).scatter(1, pairs.argmax(1, keepdim=True), True)
        free = larger & ~old.any(1, keepdim=True)
        return (old | top_mask(pairs.masked_fill(~free, -1e9), count)).view(scores.shape)

    def holds(self, mask):
        return not bool(mask.reshape(-1, 2).all(1).any())


@method("bursting", label="Bursting")
def bursting(layers, epochs, rng, *, size: float = 0.5):
    return Plan((Phase(epochs, update=Burst(size=size), label="s"),), initial="random")
"""
ABLATION = """
name: mine
question: Does it work from outside?
plugins: [my_task.py, my_method.py]
scales:
  tiny: {task: stripes, epochs: 3, seeds: 1, sparsity: 0.5}
  long: {task: stripes, epochs: 9, seeds: 1, sparsity: 0.5}
trials:
  - {method: dense}
  - {method: [mine, bursting, shifting]}
  - {method: prune_from_dense, pattern: pairs}
  - {method: c_gap, partitions: 2}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "my_method.py").write_text(METHOD)
    (tmp_path / "mine.yaml").write_text(ABLATION)
    return tmp_path


def gapbench(folder, *words):
    command = [sys.executable, "-P", "-m", "gapbench", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def keys_of(folder, method):
    trials = (json.loads(path.read_text()) for path in folder.glob("results/runs/*/trial.json"))
    return {trial["key"] for trial in trials if trial["method"] == method}


def test_files_beside_an_ablation_bring_tasks_models_methods_and_patterns(folder):
    done = gapbench(folder, "run", "mine.yaml", "--scale", "tiny", "--executor", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(path.read_text()) for path in folder.glob("results/runs/*/result.json")]
    assert len(results) == 6
    shifted = next(r for r in results if r["key"] in keys_of(folder, "shifting"))
    layers = {r["density"]: r["numel"] for r in shifted["density"]["layers"].values()}
    assert len(layers) == 2  # the budget has moved
    assert shifted["density"]["prunable"] == pytest.approx(0.5, abs=0.01)
    assert all("test/accuracy" in result["metrics"] for result in results)
    assert (folder / "results/reports/tiny/mine/table.md").is_file()
    again = gapbench(folder, "report", "mine.yaml", "--scale", "tiny")
    assert again.returncode == 0, again.stderr


def test_the_contract_tests_run_over_what_is_plugged_in(folder):
    words = "mine or bursting or shifting or pairs"
    tests = [str(ROOT / f"tests/engine/test_{name}.py") for name in ("sparsifier", "patterns")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", words, *tests]
    environment = {**os.environ, "GAPBENCH_PLUGINS": str(folder / "my_method.py")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.rpartition(" passed")[0].rpartition("\n")[2]) > 40


def test_another_scale_and_the_python_face_know_them_too(folder):
    program = "import gapbench; print(len(gapbench.Study.read('mine.yaml', scale='long').entries))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder
    )
    assert done.stdout == "6\n", done.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("my_task.py", "import nothing_here", "my_task.py cannot be imported: ModuleNotFoundError"),
        ("my_task.py", "def f(:", "my_task.py cannot be imported: SyntaxError"),
        (
            "mine.yaml",
            ABLATION.replace("_task", "_tusk"),
            "mine.yaml:4: plugins[0]: 'my_tusk",
        ),
        ("mine.yaml", ABLATION.replace("my_task.py", "mine.yaml"), "is not a Python file"),
    ],
)
def test_a_file_that_is_no_plug_in_is_named_in_one_line(folder, name, text, message):
    (folder / name).write_text(text)
    done = gapbench(folder, "run", "mine.yaml", "--scale", "tiny", "--dry-run")
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
