"""Several trials in one process: each gives the bits that it gives alone, whatever happens.

They train on the GPU where there is one, each lane on its own stream.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from functools import partial

import pytest
import torch

from gapbench.__main__ import main
from gapbench.errors import UserError
from gapbench.execution.lanes import LaneTrial, lanes_that_fit, run_lanes
from gapbench.launch.lanes import untouched
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from tests.lanes import folders, in_lanes, noisy
from tests.runs import ABLATIONS, assert_equal, attempt
from tests.slurm.cluster import wait_until

METHODS = ("dense", "static", "set", "rigl", "str", "prune_from_dense", "c_gap", "p_gap")
GIGABYTE = 2**30
WAIT = 200  # seconds; on a machine with nothing else to do it takes a few


@pytest.fixture(scope="module")
def entries():
    return [noisy(only=f"method={method}") for method in METHODS]


@pytest.fixture(scope="module")
def alone(entries, tmp_path_factory):
    """The trials, run one by one."""
    places = folders(tmp_path_factory.mktemp("alone"), entries)
    assert [attempt(place) for place in places] == ["completed"] * len(places)
    return places


def in_child(*arguments):
    """Start `in_lanes` in a process of its own; a forked one could not use the GPU."""
    process = multiprocessing.get_context("spawn").Process(target=in_lanes, args=arguments)
    process.start()
    return process


def assert_same(places, alone):
    for place, other in zip(places, alone, strict=True):
        assert_equal(place, other)
        one, two = place.read_result(), other.read_result()
        assert one["digest"] == two["digest"]
        assert one["history_sha256"] == two["history_sha256"]


def trained(place):
    """Return how many epochs a trial has told of."""
    return place.read_status().get("epoch") or 0


@pytest.mark.slow
def test_eight_methods_side_by_side_give_the_bits_that_they_give_alone(entries, alone, tmp_path):
    places = folders(tmp_path, entries)
    assert in_lanes(places) == ["completed"] * len(places)
    assert_same(places, alone)
    for place in places:
        assert (place.sacred / "1" / "run.json").exists()
        told = place.log.read_text()
        assert "Started run" in told and told.count("Completed after") == 1  # its own, and no other


@pytest.mark.slow
def test_lanes_that_are_killed_and_then_stopped_go_on_to_the_same_bits(entries, alone, tmp_path):
    places = folders(tmp_path, entries)
    for number, state in ((signal.SIGKILL, "lost"), (signal.SIGTERM, "interrupted")):
        before = [trained(place) for place in places]
        child = in_child(places)
        wait_until(
            lambda before=before: all(
                trained(place) > had and place.living_owner() and place.checkpoint.exists()
                for place, had in zip(places, before, strict=True)
            ),
            WAIT,
            "all lanes to train",
        )
        os.kill(child.pid, number)
        child.join(WAIT)
        assert child.exitcode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert [place.state() for place in places] == [state] * len(places)
    assert in_lanes(places, at_once=3) == ["completed"] * len(places)
    assert_same(places, alone)
    assert [place.read_status()["attempt"] for place in places] == [3] * len(places)


@pytest.mark.slow
def test_lanes_that_fail_leave_the_others_alone(entries, alone, tmp_path):
    bad = [
        noisy("recipe.lr=1e30", only="method=rigl"),
        noisy("recipe.lr=0.3", only="method=static"),
        noisy("recipe.ranks=2", only="method=static"),
    ]
    diverging, damaged, ranked = folders(tmp_path, bad)
    damaged.checkpoint.write_bytes(b"PK\x03\x04 not a checkpoint")
    (unusable,) = folders(tmp_path, [noisy("recipe.lr=0.2", only="method=static")])
    unusable.history.mkdir()
    good = folders(tmp_path, entries[:2])
    places = [diverging, damaged, unusable, good[0], ranked, good[1]]
    assert in_lanes(places) == ["failed", "failed", "failed", "completed", "failed", "completed"]
    assert_same(good, alone[:2])
    assert "training diverged" in diverging.read_status()["error"]
    assert "is damaged" in damaged.read_status()["error"]
    assert "1 processes train a trial of 2" in ranked.read_status()["error"]


@pytest.mark.slow
def test_a_lane_that_is_cancelled_leaves_the_others_alone(entries, alone, tmp_path, capsys):
    (victim,) = folders(tmp_path, [noisy("epochs=500", only="method=static")])
    good = folders(tmp_path, entries[:3])
    child = in_child([victim, *good], 2)
    wait_until(lambda: trained(victim) > 0, WAIT, "the lane to train")
    assert main(["cancel", victim.path.name, "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"asked to stop: {victim.path.name}\n"
    wait_until(lambda: victim.living_owner() is None, WAIT, "the lane to stop")
    assert not good[2].completed()
    child.join(WAIT)
    assert child.exitcode == 0
    assert victim.state() == "interrupted" and victim.checkpoint.exists()
    assert_same(good, alone[:3])


@pytest.mark.slow
def test_equal_trials_side_by_side_advance_side_by_side(tmp_path):
    chosen = [noisy(f"recipe.lr=0.{rate}", only="method=static") for rate in range(1, 5)]
    steps, after_first = Counter(), []

    def asked():
        steps[threading.current_thread().name] += 1
        if max(steps.values()) == 60 and not after_first:
            after_first.extend(steps.values())
        return False

    trials = [LaneTrial(place.path, "tests") for place in folders(tmp_path, chosen)]
    assert set(run_lanes(trials, 4, stop=asked).values()) == {"completed"}
    assert len(after_first) == 4 and min(after_first) >= 30


@pytest.mark.fairseq
@pytest.mark.usefixtures("fairseq")
def test_translations_side_by_side_give_the_bits_that_they_give_alone(tmp_path):
    """Their dropout draws from torch's generator, and fairseq seeds numpy's for its batches."""
    file = ABLATIONS / "translation.yaml"
    rows = expanded(file, "smoke", ["epochs=8"], ["dense,rigl"], "1")[2]
    one_by_one, places = folders(tmp_path / "alone", rows), folders(tmp_path / "lanes", rows)
    assert {attempt(place) for place in one_by_one} == {"completed"}
    assert in_lanes(places) == ["completed"] * len(places)
    assert_same(places, one_by_one)


def test_a_trial_that_another_process_has_begun_since_the_launch_is_left_to_it(tmp_path):
    taken, done = folders(
        tmp_path, [noisy(only="method=static"), noisy("recipe.lr=0.3", only="method=static")]
    )
    done.begin_attempt()
    done.end_attempt("failed")
    trials = [LaneTrial(place.path, "tests", partial(untouched, place.path, 0))
              for place in (taken, done)]  # fmt: skip
    with RunFolder(taken.path).owned():
        states = run_lanes(trials, 1, stop=lambda: False)
    assert states == {taken.path: "elsewhere", done.path: "elsewhere"}
    assert done.state() == "failed" and not taken.completed()


def test_trials_that_need_other_threads_or_kernels_do_not_share_a_process(tmp_path):
    for setting in ("recipe.cpu_threads=2", "recipe.portable=true"):
        places = folders(
            tmp_path, [noisy(only="method=static"), noisy(setting, only="method=static")]
        )
        with pytest.raises(UserError, match=r"lanes: .* and .* cannot share a process: recipe\."):
            run_lanes([LaneTrial(place.path, "tests") for place in places], stop=lambda: False)
        assert [place.state() for place in places] == ["planned", "planned"]


def test_nothing_begins_once_all_are_asked_to_stop(tmp_path):
    (place,) = folders(tmp_path, [noisy(only="method=static")])
    assert run_lanes([LaneTrial(place.path, "tests")], stop=lambda: True) == {}
    assert place.state() == "planned"


def test_lanes_are_as_many_as_trials_memory_and_streams_allow():
    assert lanes_that_fit(100, GIGABYTE, 70 * GIGABYTE) == 16
    assert lanes_that_fit(100, 10 * GIGABYTE, 70 * GIGABYTE) == 1 + 3  # 56 of 70, 15 each
    assert lanes_that_fit(2, GIGABYTE, 70 * GIGABYTE) == 2
    assert lanes_that_fit(100, 50 * GIGABYTE, 20 * GIGABYTE) == 1
    assert lanes_that_fit(100, GIGABYTE, 0) == 1
    assert lanes_that_fit(5, 0, GIGABYTE) == 5  # the first trial ended before it had a tensor
    with pytest.raises(ValueError, match="0 lanes"):
        run_lanes([], 0, stop=lambda: False)


@pytest.mark.slow
def test_more_lanes_begin_when_the_memory_of_the_first_is_known(tmp_path):
    chosen = [
        noisy("epochs=12", f"recipe.lr=0.{rate}", only="method=static") for rate in range(1, 6)
    ]
    steps, before = Counter(), []

    def asked():
        steps[threading.current_thread().name] += 1
        return False

    def memory():
        before.append(steps["lane 0"])
        return GIGABYTE, 4 * GIGABYTE  # room for two more

    trials = [LaneTrial(place.path, "tests") for place in folders(tmp_path, chosen)]
    states = run_lanes(trials, stop=asked, memory=memory)
    assert list(states.values()) == ["completed"] * 5
    assert {"lane 0", "lane 1", "lane 2"} == {n for n in steps if n.startswith("lane")}
    assert min(steps.values()) >= 120  # each has trained a trial
    assert before[0] == 0 and 50 <= before[1] < 120


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_lanes_on_streams_of_one_gpu_give_the_bits_that_they_give_alone(entries, alone, tmp_path):
    places = folders(tmp_path, entries)
    states = run_lanes([LaneTrial(place.path, "tests") for place in places], stop=lambda: False)
    assert set(states.values()) == {"completed"} and len(states) == len(places)
    assert_same(places, alone)
