"""One trial on several processes: the process group, and the work of all ranks but rank 0."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gapbench.launch.queue import SlurmError, command

if TYPE_CHECKING:
    from gapbench.execution.trial_run import Execution


@contextmanager
def joined() -> Iterator[int]:
    """Join the processes of this submitit job into one process group; yield this process's rank."""
    import torch
    from submitit.helpers import TorchDistributedEnvironment

    place = TorchDistributedEnvironment()
    place.master_addr = address(place.master_addr)
    place.export(set_cuda_visible_devices=False, overwrite=True)
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(place.local_rank)
    torch.distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        yield place.rank
    finally:
        torch.distributed.destroy_process_group()


def address(node: str) -> str:
    """Return the network address of a node: its name, or the address that SLURM lists."""
    try:
        socket.getaddrinfo(node, None)
        return node
    except socket.gaierror:
        pass
    try:
        fields = command("scontrol", "--oneliner", "show", "node", node).split()
    except SlurmError:
        return node
    known = dict(field.partition("=")[::2] for field in fields)
    return known.get("NodeAddr", node)


def follow_first_rank(run_dir: Path, execution: Execution) -> str:
    """Train along with rank 0; only rank 0 owns the run folder and writes into it."""
    from gapbench.execution.stopping import StopSign
    from gapbench.execution.trial_run import run_trial
    from gapbench.runs.store import RunFolder
    from gapbench.spec.trials import Trial
    from gapbench.training.loop import Interrupted

    stop = StopSign()
    stop.raised_by_signals()  # what counts is rank 0's flag, but a signal must not kill this one
    folder = RunFolder(run_dir)
    try:
        run_trial(folder, Trial.read(folder.trial), execution, stop, _no_scalar)
    except Interrupted:
        return "interrupted"
    return "completed"


def _no_scalar(name: str, value: float, step: int) -> None:
    """Do nothing: only rank 0 has a Sacred run."""
