"""From outside of the package: a scale, a task with a colour data set, a model and a method."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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

from gapbench.methods.method import method
from gapbench.plan.phases import Phase, Plan
from gapbench.plan.update import Update, update
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.sparsity.score import score


@score("smallest_gradient")
def smallest_gradient(inputs):
    return None if inputs.gradient is None else -inputs.gradient.abs()


@method("mine", label="Mine")
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
  - {method: [mine, bursting]}
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


@pytest.mark.parametrize("executor", ["debug", "local"])
def test_files_beside_an_ablation_bring_tasks_models_and_methods(folder, executor):
    done = gapbench(folder, "run", "mine.yaml", "--scale", "tiny", "--executor", executor)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(path.read_text()) for path in folder.glob("results/runs/*/result.json")]
    assert len(results) == 4
    assert all("test/accuracy" in result["metrics"] for result in results)
    assert (folder / "results/reports/tiny/mine/table.md").is_file()
    again = gapbench(folder, "report", "mine.yaml", "--scale", "tiny")
    assert again.returncode == 0, again.stderr


def test_another_scale_and_the_python_face_know_them_too(folder):
    program = "import gapbench; print(len(gapbench.Study.read('mine.yaml', scale='long').entries))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder
    )
    assert done.stdout == "4\n", done.stderr


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
        ("mine.yaml", ABLATION.replace("my_task.py", "mine.yaml"), "is no Python file"),
    ],
)
def test_a_file_that_is_no_plug_in_is_named_in_one_line(folder, name, text, message):
    (folder / name).write_text(text)
    done = gapbench(folder, "run", "mine.yaml", "--scale", "tiny", "--dry-run")
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
