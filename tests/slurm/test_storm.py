"""Faults in a row, chosen at random, while trials of several kinds run.

A few by default, since each costs seconds; GAPBENCH_STORM=30 makes a long storm.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gapbench.__main__ import main
from gapbench.base.documents import read_json
from gapbench.launch.jobs import Attempt
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.study import job_of
from tests.runs import ABLATIONS, assert_equal
from tests.slurm.cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm

FAULTS = int(os.environ.get("GAPBENCH_STORM", "6"))
EPOCHS = 21 + 10 * FAULTS // 3  # about as long as the storm
PAUSE = 1.0
DEAD_NODE_SECONDS = 18.0  # SLURM gives a silent node up after 15
FILE = ABLATIONS / "main.yaml"
SETS = [f"epochs={EPOCHS}", "partitions=2", "step_epochs=2"]
ONLY = ["c_gap,p_gap", "distribution=uniform", "pattern=unstructured"]
COMMAND = ["run", str(FILE), "--scale", "smoke", "--seeds", "1", "--executor", "slurm"]
COMMAND += [word for value in SETS for word in ("--set", value)]
COMMAND += [word for value in ONLY for word in ("--only", value)]


class Storm:
    """The trials' command on a cluster, and what can happen to it."""

    def __init__(self, cluster: Cluster, results: Path, chance: random.Random) -> None:
        self.cluster = cluster
        self.results = results
        self.chance = chance
        self.launcher: subprocess.Popen[bytes] | None = None
        self.dead: dict[str, float] = {}
        self.hits = 0  # faults that met a running job

    def keep_launched(self) -> None:
        if self.launcher is None or self.launcher.poll() is not None:
            command = [sys.executable, "-m", "gapbench", *COMMAND, "--results", str(self.results)]
            with open(self.results / "launcher.log", "ab") as log:
                self.launcher = subprocess.Popen(
                    command, cwd=FILE.parent, stdout=log, stderr=subprocess.STDOUT
                )

    def faults(self) -> list[Callable[[], None]]:
        return [
            self.kill_a_process,
            lambda: self.signal_a_job("USR2"),
            lambda: self.signal_a_job("TERM"),
            lambda: self.tell_a_job("scontrol", "requeue"),
            lambda: self.tell_a_job("scancel"),
            self.kill_a_node,
            self.restart_the_controller,
            self.kill_the_launcher,
        ]

    def owners(self) -> list[dict[str, Any]]:
        folders = [RunFolder(path) for path in (self.results / "runs").glob("*")]
        folders += [RunFolder(place) for path in folders for place in path.rounds.glob("*/*")]
        return [owner for folder in folders if (owner := folder.living_owner())]

    def let_something_begin(self) -> None:
        with suppress(TimeoutError):  # nothing may be able to, or everything be done
            wait_until(lambda: bool(self.owners()), 20, "a trial to begin")

    def kill_a_process(self) -> None:
        owners = self.owners()
        if owners:
            self.hits += 1
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(owners)["pid"], signal.SIGKILL)

    def signal_a_job(self, name: str) -> None:
        self.tell_a_job("scancel", f"--signal={name}")

    def tell_a_job(self, *words: str) -> None:
        running = self.cluster.run("squeue", "-h", "--array", "--states=R", "--format=%i").split()
        if running:
            self.hits += 1
            self.cluster.run(*words, self.chance.choice(running), check=False)

    def kill_a_node(self) -> None:
        name = self.chance.choice([n for n in self.cluster.names if n not in self.dead])
        self.cluster.kill(f"slurmd.{name}")
        self.dead[name] = time.monotonic()

    def return_nodes(self, after: float) -> None:
        for name, since in list(self.dead.items()):
            if time.monotonic() - since >= after:
                self.cluster.start_node(name)
                del self.dead[name]

    def restart_the_controller(self) -> None:
        self.cluster.kill("slurmctld", signal.SIGTERM)
        self.cluster.start_controller()

    def kill_the_launcher(self) -> None:
        if self.launcher is not None:
            self.launcher.kill()
            self.launcher.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    results = tmp_path_factory.mktemp("calm")
    jobs = [job_of(results, "main", e, 1) for e in expanded(FILE, "smoke", SETS, ONLY, "1")[2]]
    assert len(jobs) == 2  # C-GaP and P-GaP
    for job in jobs:
        assert Attempt(job)() == "completed"
    return [RunFolder(job.folder) for job in jobs]


@pytest.mark.timeout(500 + 20 * FAULTS)  # with the undisturbed trials
def test_random_faults_in_a_row_lose_nothing(cluster, tmp_path, undisturbed):
    storm = Storm(cluster, tmp_path, random.Random(11))
    done = 0
    while done < FAULTS:
        storm.keep_launched()
        storm.return_nodes(DEAD_NODE_SECONDS)
        storm.let_something_begin()
        time.sleep(storm.chance.uniform(0.5, 2) * PAUSE)
        faults = storm.faults()
        if len(storm.dead) > 1:
            faults.remove(storm.kill_a_node)
        storm.chance.choice(faults)()
        done += 1
    storm.kill_the_launcher()
    storm.return_nodes(0)
    cluster.wait_for_jobs(300)

    assert main([*COMMAND, "--results", str(tmp_path)]) == 0
    for calm in undisturbed:
        folder = RunFolder(tmp_path / "runs" / calm.path.name)
        assert_equal(folder, calm)
        runs = [read_json(path) or {} for path in folder.sacred.glob("*/run.json")]
        assert [run["status"] for run in runs].count("COMPLETED") == 1
    assert storm.hits >= max(1, FAULTS // 10)  # or the trials were over before the storm was
