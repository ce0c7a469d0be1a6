"""Run folders of small real trials, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gapbench.execution.sacred_run import run_attempt
from gapbench.execution.trial_run import Execution
from gapbench.runs.store import RunFolder
from gapbench.spec.grid import Entry
from gapbench.spec.selection import expanded

ABLATIONS = Path(__file__).parent.parent / "ablations"


def entry(ablation: str = "main", *sets: str, only: str) -> Entry:
    """Return the first trial of an ablation's image rows at scale smoke that matches `only`."""
    file = ABLATIONS / f"{ablation}.yaml"
    return expanded(file, "smoke", sets, [only], "1")[2][0]


def prepared(results: Path, chosen: Entry) -> RunFolder:
    """Write the folder that a node would find."""
    folder = RunFolder(results / "runs" / chosen.trial.key)
    folder.prepare(chosen.trial.document())
    return folder


def attempt(folder: RunFolder, stop: Callable[[], bool] = lambda: False, **execution: Any) -> str:
    """Run one attempt in this process; no signal handler is touched."""
    return run_attempt(folder.path, "tests", Execution(**execution), stop=stop)


def outcome(folder: RunFolder) -> dict[str, Any]:
    """Return everything of a completed run that must not depend on how it was executed."""
    result = folder.read_result()
    assert result is not None, folder.error.read_text() if folder.error.exists() else "no result"
    kept = ("metrics", "sparsity", "density", "cost", "exploration", "epochs", "data_sha256")
    return {
        "result": json.dumps({name: result[name] for name in kept}, sort_keys=True),
        "history": folder.history.read_bytes(),
        "state": {
            f"{group}/{name}": tensor
            for group, tensors in torch.load(folder.model, weights_only=True).items()
            for name, tensor in tensors.items()
        },
    }


def assert_equal(a: RunFolder, b: RunFolder) -> None:
    """Compare two completed runs bit by bit."""
    one, other = outcome(a), outcome(b)
    assert one["result"] == other["result"]
    assert one["history"] == other["history"]
    assert one["state"].keys() == other["state"].keys()
    for name, tensor in one["state"].items():
        assert torch.equal(tensor, other["state"][name]), name
