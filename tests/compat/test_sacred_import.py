"""sacred without pkg_resources, and what it then knows of the installed packages."""

from __future__ import annotations

import subprocess
import sys
import warnings

PROGRAM = """
import sys
sys.modules["pkg_resources"] = {there}
from gapbench.compat.sacred_import import Experiment
from sacred.dependencies import PackageDependency, get_dependencies_from_pkg
import numpy
known = {{d.name: d.version for d in get_dependencies_from_pkg(None, None)}}
dependency = PackageDependency("numpy", None)
dependency.fill_missing_version()
created = PackageDependency.create(numpy)
created.fill_missing_version()
print(known["numpy"] == dependency.version == created.version == numpy.__version__)
print(sys.modules["pkg_resources"])
"""


def run(there: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", PROGRAM.format(there=there)]
    return subprocess.run(program, capture_output=True, text=True)


def test_sacred_needs_no_pkg_resources_and_says_nothing_of_it():
    done = run("None")  # as where it is not installed
    assert done.stdout.splitlines() == ["True", "None"], done.stderr
    assert done.stderr == ""


def test_the_pkg_resources_of_others_comes_back():
    assert run("'theirs'").stdout.splitlines() == ["True", "theirs"]


def test_what_sacred_is_told_is_what_pkg_resources_says():
    from gapbench.compat.sacred_import import _WorkingSet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pkg_resources  # of the setuptools in constraints.txt
    ours = {installed.project_name: installed for installed in _WorkingSet()}
    theirs = {distribution.project_name: distribution for distribution in pkg_resources.working_set}
    spelled = {name.replace("_", "-").replace(".", "-").lower(): ours[name] for name in ours}
    assert len(ours) > 30
    for name, distribution in theirs.items():
        own = spelled[name.replace("_", "-").replace(".", "-").lower()]
        assert own.version == distribution.version
        if distribution.has_metadata("top_level.txt"):
            lines = list(distribution.get_metadata_lines("top_level.txt"))
            assert own._get_metadata("top_level.txt") == lines, name
