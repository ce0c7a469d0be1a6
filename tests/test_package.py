"""The package as a whole: what importing it costs, what it exports, what it needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import gapbench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_importing_the_package_loads_no_heavy_module():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'sacred'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, gapbench; print(sorted({heavy}))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_sparsifier_is_loaded_from_the_package_on_first_use():
    from gapbench.engine.sparsifier import Sparsifier

    assert gapbench.Sparsifier is Sparsifier


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Sparsifer'"):
        _ = gapbench.Sparsifer


def _pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pins}


def test_every_requirement_allows_the_version_it_was_tested_with():
    extras = PROJECT["optional-dependencies"].values()
    requirements = [Requirement(text) for text in sum(extras, PROJECT["dependencies"])]
    pinned = _pinned()
    for requirement in requirements:
        assert pinned[requirement.name] in requirement.specifier, requirement
    assert len(requirements) > 25


def test_the_pinned_torch_and_torchvision_belong_together():
    torch, torchvision = (_pinned()[name].split(".") for name in ("torch", "torchvision"))
    assert int(torchvision[1]) == int(torch[1]) + 15
