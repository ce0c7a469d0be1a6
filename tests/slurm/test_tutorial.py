"""The tutorial of the cluster, done from an empty folder on a cluster."""

from __future__ import annotations

import pytest

from tests.docs.pages import DOCS, play
from tests.slurm.test_docs import Shell

pytestmark = pytest.mark.slurm


@pytest.mark.timeout(500)
def test_a_reader_can_do_all_that_the_tutorial_says(plain_cluster, tmp_path):
    env = Shell(plain_cluster, tmp_path).env
    folder = tmp_path / "work"
    folder.mkdir()
    play(DOCS / "tutorials" / "your-cluster.md", folder, env)
    done = list(folder.glob("results/runs/*/result.json"))
    assert len(done) == 3  # dense, RigL and C-GaP
    assert len(list(folder.glob("results/slurm/*"))) >= 1
