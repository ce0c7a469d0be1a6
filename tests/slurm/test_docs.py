"""Every command of docs/slurm.md, executed in its order on a cluster with accounting."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gapbench.launch.profile import Profile
from tests.runs import ABLATIONS
from tests.slurm.cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm

ROOT = ABLATIONS.parent
PAGE = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


class Shell:
    """A login shell of the cluster, in a copy of the repository."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cwd = home / "gapbench"
        self.cwd.mkdir()
        for name in ("ablations", "baselines", "scales.yaml"):
            (self.cwd / name).symlink_to(ROOT / name)
        programs = os.path.dirname(sys.executable)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "GAPBENCH_"))},
            **cluster.env,
            "HOME": str(home),
            "PATH": f"{programs}:{cluster.env['PATH']}",
        }

    def run(self, lines: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", lines]
        done = subprocess.run(
            command, cwd=self.cwd, env=self.env, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def states(self) -> list[str]:
        views = json.loads(self.run("gapbench status --json"))
        return [view["state"] for view in views]


@pytest.mark.timeout(500)
def test_every_command_of_the_page_works_in_its_order(accounting_cluster, tmp_path):
    shell = Shell(accounting_cluster, tmp_path)
    describe, submit, watch, go_on = BLOCKS
    shell.run(describe)
    assert "submitted" in shell.run(submit)
    wait_until(lambda: "running" in shell.states(), 120, "a trial to run")
    (key, *_) = [path.name for path in (shell.cwd / "results" / "runs").glob("*")]
    for line in watch.strip().splitlines():
        shell.run(line.replace("KEY", key))
    again, retry, report = go_on.strip().splitlines()
    shell.run(again)
    assert set(shell.states()) == {"completed"}
    assert "0 to run" in shell.run(retry)
    shell.run(report)
    profile = (tmp_path / ".config" / "gapbench" / "profile.yaml").read_text()
    assert "partition: main" in profile
    listed = shell.run("sacct --noheader --allocations --format=State --starttime=now-1hour")
    assert "COMPLETED" in listed


def test_every_key_of_a_profile_is_explained():
    table = PAGE.split("| key | meaning |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) - {"sbatch"} == set(Profile.model_fields) - {"sbatch"}
