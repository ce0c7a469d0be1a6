"""SLURM clusters for the tests of this folder: real daemons, four nodes, stopped at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing

# options of SLURM's commands in the user's shell: whatever they say, the profile decides
SHELL = {
    "SBATCH_PARTITION": "short",
    "SBATCH_TIMELIMIT": "4",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_MEM_PER_CPU": "1",
    "SBATCH_ACCOUNT": "nobody",
    "SBATCH_HOLD": "1",
    "SQUEUE_STATES": "SUSPENDED",
    "SCANCEL_INTERACTIVE": "1",
    "SCANCEL_STATE": "SUSPENDED",
    "SRUN_EXPORT_ENV": "NONE",
    "SLURM_CPU_BIND": "rank",
}


@pytest.fixture(scope="session")
def plain_cluster() -> Iterator[Cluster]:
    """Four nodes without accounting: sacct knows nothing."""
    yield from _running(accounting=False)


@pytest.fixture(scope="session")
def accounting_cluster() -> Iterator[Cluster]:
    """Four nodes with slurmdbd and MariaDB."""
    yield from _running(accounting=True)


def _running(accounting: bool) -> Iterator[Cluster]:
    lacking = missing(accounting)
    if lacking:
        pytest.skip(f"the test cluster needs {', '.join(lacking)} (see tests/slurm/cluster.py)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    short = "PartitionName=short Nodes=ALL MaxTime=60 State=UP"
    cluster = Cluster(folder, accounting=accounting, lines=[short])
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(plain_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster without accounting, in this process's environment; no job outlives the test."""
    yield _used(plain_cluster, monkeypatch)
    plain_cluster.clear()


def _used(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name, value in {**cluster.env, **SHELL}.items():
        monkeypatch.setenv(name, value)
    return cluster
