"""Processes that tests start, and ranks among them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SECONDS = 120  # that a spawned rank may take: it imports torch, and a GPU's first kernels are slow


def context() -> Any:
    """Return how processes are started: forked, so that they have torch imported already.

    A fork of a process that has used a GPU could not use it: those are spawned.
    """
    return multiprocessing.get_context("spawn" if torch.cuda.is_initialized() else "fork")


def in_child(function: Callable[..., object], *arguments: object) -> Any:
    """Start a process that runs `function`."""
    process = context().Process(target=function, args=arguments)
    process.start()
    return process


def free_port() -> int:
    """Return a TCP port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_two_ranks(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """Return what `work` returns on each of two ranks; it is a function of a module."""
    port = free_port()
    children = [in_child(_rank, rank, 2, port, work, folder) for rank in range(2)]
    for child in children:
        child.join(SECONDS)
    assert [child.exitcode for child in children] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _rank(rank: int, world: int, port: int, work: Callable[[int], Any], folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    torch.save(work(rank), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
