"""Which trials share a job: short ones that are alike, and never those of several processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gapbench.launch.arrangement import arrange, side_by_side
from gapbench.launch.jobs import Job
from gapbench.launch.profile import Profile, shape
from gapbench.plan.phases import Plan
from gapbench.spec.grid import Entry
from gapbench.tasks.task import Resources
from tests.runs import entry

SMALL = Resources(memory_gb=1, hours=1)


def jobs(*minutes, **fields):
    return [
        Job(
            Path(f"/results/runs/{number:016x}"),
            "tests",
            f"trial {number}",
            **{"resources": SMALL, "seconds": time and time * 60, **fields},
        )
        for number, time in enumerate(minutes)
    ]


def sizes(work, **profile):
    """Return how many trials each job carries, shape by shape."""
    arranged = arrange(work, Profile(**{"pack_minutes": 5, **profile}))
    return [len(pack) for packs in arranged.arrays.values() for pack in packs]


def test_a_job_takes_trials_until_its_minutes_are_full():
    assert sizes(jobs(*[1] * 12)) == [5, 5, 2]
    assert sizes(jobs(*[1] * 12), pack_minutes=60) == [12]
    assert sizes(jobs(3, 3, 2, 4, 1), pack_minutes=5) == [1, 2, 2]


def test_trials_longer_than_the_minutes_are_alone_and_others_go_on_filling():
    assert sizes(jobs(1, 30, 1, 1)) == [3, 1]
    assert str(arrange(jobs(1, 30, 1, 1), Profile(pack_minutes=5))) == "4 trials as 2 jobs"


@pytest.mark.parametrize("profile", [{"pack_minutes": 0}, {"pack_minutes": 0.5}])
def test_nothing_is_packed_where_no_trial_fits(profile):
    assert sizes(jobs(1, 1, 1), **profile) == [1, 1, 1]


def test_the_time_limit_bounds_a_job_whatever_its_minutes():
    # the task's hour less the time of SLURM's warning
    assert sizes(jobs(*[10] * 6), pack_minutes=600) == [5, 1]
    assert sizes(jobs(*[10] * 6), pack_minutes=600, hours=2) == [6]


def test_a_trial_that_nothing_is_known_of_takes_the_hours_of_its_task():
    assert sizes(jobs(None, None)) == [1, 1]
    assert sizes(jobs(None, None, None), pack_minutes=120, hours=4) == [2, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"threads": 2},
        {"portable": True},
        {"resources": Resources(memory_gb=2, hours=1)},
        {"resources": Resources(memory_gb=1, hours=2)},
    ],
)
def test_trials_that_differ_in_what_they_occupy_share_no_job(other):
    mixed = [*jobs(1, 1), *(replace(job, **other) for job in jobs(1, 1))]
    assert sizes(mixed, memory_gb=8, hours=3, cpus=2, parallel=1, chain=False) == [2, 2]
    # whatever their order
    one, two, three, four = mixed
    wanted = arrange(
        [one, three, two, four], Profile(cpus=2, memory_gb=8, hours=3, parallel=1, pack_minutes=5)
    )
    assert list(*wanted.arrays.values()) == [(one, two), (three, four)]


def test_trials_of_several_processes_share_no_job():
    assert sizes(jobs(1, 1, ranks=2), tasks_per_node=2) == [1, 1]
    assert sizes(jobs(1, 1, branches=2)) == [1, 1]


def test_chains_share_no_job():
    def plan_of(chosen: Entry) -> Plan:
        return chosen.trial.plan

    parallel = plan_of(entry("main", only="P-GaP"))
    cyclic = plan_of(entry("main", only="C-GaP"))
    assert sizes(jobs(1, 1, plan=cyclic)) == [2]
    arranged = arrange(jobs(1, 1, plan=parallel), Profile())
    assert not arranged.arrays
    assert len(arranged.chains) == 2
    assert str(arranged).startswith("2 trials as ")
    # the time limit splits trials that may take longer, not those that are known to be short
    assert arrange(jobs(None, None, plan=cyclic), Profile(hours=0.5)).arrays == {}
    assert sizes(jobs(1, 1, plan=cyclic), hours=0.5) == [2]


def test_jobs_with_room_train_trials_side_by_side():
    (job,) = jobs(1)

    def room(**profile):
        chosen = Profile(**{"pack_minutes": 5, **profile})
        return side_by_side(job, shape(job.resources, job.threads, chosen, 1), chosen)

    assert room() == 1
    assert room(cpus=4) == 1  # the memory is that of one trial
    assert room(cpus=4, memory_gb=3) == 3
    assert room(cpus=4, memory_gb=None) == 4
    assert room(cpus=4, memory_gb=8, parallel=2) == 2
    assert room(cpus=4, memory_gb=8, gpus=1) == 1
    assert room(cpus=4, memory_gb=8, gres="gpu:1") == 1
    assert sizes(jobs(*[1] * 12), cpus=2, memory_gb=2) == [10, 2]
