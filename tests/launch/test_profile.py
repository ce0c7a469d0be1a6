"""Cluster profiles: found, read strictly, and turned into what sbatch is asked for."""

from __future__ import annotations

import pytest

from gapbench.errors import UserError
from gapbench.launch import profile
from gapbench.launch.profile import Profile
from gapbench.tasks.task import Resources


def written(tmp_path, text):
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    return file


def test_the_profile_is_the_given_the_named_or_the_usual_file(tmp_path, monkeypatch):
    monkeypatch.delenv("GAPBENCH_PROFILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert profile.find(None) is None
    usual = tmp_path / "gapbench" / "profile.yaml"
    usual.parent.mkdir()
    usual.write_text("partition: long\n")
    assert profile.find(None) == usual
    monkeypatch.setenv("GAPBENCH_PROFILE", str(tmp_path / "named.yaml"))
    assert profile.find(None) == tmp_path / "named.yaml"
    assert profile.find(tmp_path / "given.yaml") == tmp_path / "given.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitoin: long", "cluster.yaml:1: partitoin: unknown key .*did you mean 'partition'"),
        ("partition: long\nhours: two", "cluster.yaml:2: hours: 'two' is not possible"),
        ("gpus: -1", "gpus: -1 is not possible: give 0 or more"),
        ("parallel: true", "parallel: True is not possible: give a whole number"),
        ("hours: .inf", "hours"),
        ("qos: a\nqos: b", "broken YAML"),
    ],
)
def test_a_mistake_in_a_profile_is_one_line_that_names_it(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        profile.read(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_profile_that_was_named_must_exist(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        profile.read(tmp_path / "nowhere.yaml")


def test_without_a_profile_trials_get_what_their_task_asks_for():
    wanted = Resources(gpus=8, cpus=96, memory_gb=256, hours=48)
    shape = profile.shape(wanted, 1, Profile(), ranks=8)
    asked = profile.parameters(shape, Profile(), "main")
    assert shape.ranks == 8
    expected = {
        "job_name": "main",
        "time": 48 * 60,
        "nodes": 1,
        "ntasks_per_node": 8,
        "cpus_per_task": 12,
        "mem": "262144MB",
        "gpus_per_node": 8,
        "signal_delay_s": 180,
    }
    assert expected.items() <= asked.items()
    assert "partition" not in asked


def test_a_profile_replaces_needs_and_adds_what_only_the_cluster_knows(tmp_path):
    text = (
        "partition: long\naccount: a1\ngres: gpu:h200:2\ngpus: 2\ncpus: 16\nhours: 0.5\n"
        "memory_gb: 1.5\nreservation: r\nsetup: module load cuda\nsbatch: {mail-type: END}\n"
    )
    chosen = profile.read(written(tmp_path, text))
    shape = profile.shape(Resources(gpus=8, cpus=96, memory_gb=256, hours=48), 1, chosen, ranks=2)
    asked = profile.parameters(shape, chosen, "main")
    expected = {
        "partition": "long",
        "account": "a1",
        "gres": "gpu:h200:2",
        "ntasks_per_node": 2,
        "cpus_per_task": 8,
        "time": 30,
        "mem": "1536MB",
        "setup": ["module load cuda"],
    }
    assert expected.items() <= asked.items()
    assert "gpus_per_node" not in asked  # gres says it already
    assert asked["additional_parameters"] == {
        "requeue": True,
        "mail-type": "END",
        "reservation": "r",
    }


def test_a_job_has_a_processor_for_each_thread_of_each_process():
    shape = profile.shape(Resources(), 4, Profile(tasks_per_node=2, nodes=3), ranks=6)
    assert (shape.resources.cpus, shape.ranks) == (8, 6)
    with pytest.raises(UserError, match="cpus: 1 for 2 processes a node: give 2"):
        profile.shape(Resources(), 1, Profile(cpus=1, tasks_per_node=2), ranks=2)


def test_processes_that_are_not_the_trials_are_refused():
    with pytest.raises(UserError, match=r"2 nodes with 1 .* of 1: .*--set recipe.ranks=2"):
        profile.shape(Resources(), 1, Profile(nodes=2), ranks=1)
    with pytest.raises(UserError, match=r"1 nodes with 4 .* of 8: .*--set recipe.ranks=4"):
        profile.shape(Resources(gpus=8), 1, Profile(gpus=4), ranks=8)


@pytest.mark.parametrize(
    "text", ["memory_gb: null", "sbatch: {mem-per-cpu: 500M}", "sbatch: {mem_per_gpu: 1G}"]
)
def test_a_cluster_that_takes_no_memory_of_a_node_is_not_asked_for_it(tmp_path, text):
    chosen = profile.read(written(tmp_path, text))
    shape = profile.shape(Resources(), 1, chosen, ranks=1)
    assert "mem" not in profile.parameters(shape, chosen, "main")


@pytest.mark.parametrize(
    "text",
    ["account: |\n  a1\n", 'partition: "a\\rb"', 'sbatch: {"a\\nb": 1}', "sbatch: {Bad Key: 1}",
     'sbatch: {comment: "a\\nrm b"}', 'qos: "a\\e[0m"'],
)  # fmt: skip
def test_a_value_that_would_be_more_than_a_line_of_the_script_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"profile\.yaml|cluster\.yaml|\.yaml:1"):
        profile.read(written(tmp_path, text))


def test_the_warning_leaves_most_of_a_short_limit_to_the_training():
    shape = profile.shape(Resources(hours=0.1), 1, Profile(), ranks=1)
    assert profile.parameters(shape, Profile(), "main")["signal_delay_s"] == 120
