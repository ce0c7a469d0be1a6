"""Construction of a trial's training objects in this process."""

from __future__ import annotations

import os

import torch

from gapbench.base.children import PORTABLE_KERNELS
from gapbench.errors import UserError
from gapbench.spec.trials import Trial
from gapbench.training import setup
from gapbench.training.distributed import Ranks
from gapbench.training.setup import Training
from gapbench.training.turn import TURN


def build_training(trial: Trial) -> Training:
    """Load the data and build the training objects of `trial`, in this thread's turn.

    Raises:
        UserError: if the data are missing, or if the number of processes is not the trial's.
    """
    trial.require_versions()
    world = Ranks.current().world
    if world != trial.ranks:
        raise UserError(
            f"{world} processes train a trial of {trial.ranks}: start {trial.ranks} processes, or "
            f"set recipe.ranks={world}, which makes another trial"
        )
    if trial.recipe.portable:
        _require_portable_kernels()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with TURN:
        task = trial.make_task()
        task.load(device)
        return setup.build(task, trial.settings(), device)


def _require_portable_kernels() -> None:
    """Check that torch uses portable kernels; torch chooses before a process's first step.

    Raises:
        UserError: if torch uses other kernels.
    """
    taken = torch.backends.cpu.get_cpu_capability()
    set_right = all(os.environ.get(name) == value for name, value in PORTABLE_KERNELS.items())
    if taken != "DEFAULT" or not set_right:
        raise UserError(
            f"recipe.portable: this process computes with {taken} kernels already: run the trial "
            "in a process of its own (executor local or slurm)"
        )
