"""The package as a whole: what importing it costs, what it exports, what it needs."""

from __future__ import annotations

import os
import shutil
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


# what the core has to do without
SUITE = [Requirement(text).name for text in PROJECT["optional-dependencies"]["suite"]]
MODULES = {"scikit-learn": "sklearn", "ruamel.yaml": "ruamel"}
# as where they are not installed
WITHOUT = "import sys; sys.modules.update(dict.fromkeys({names}))\n"


def without_suite(program: str) -> subprocess.CompletedProcess[str]:
    names = [MODULES.get(name, name) for name in SUITE]
    code = WITHOUT.format(names=names) + program
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("method", ["c_gap", "rigl", "gradual"])
def test_the_sparsifier_needs_torch_numpy_and_pydantic_alone(method):
    example = (ROOT / "README.md").read_text().split("<!-- example -->")[1]
    example = example.split("```python\n")[1].split("```")[0]
    if method != "c_gap":
        example = example.replace('method="c_gap"', f'method="{method}"')
        example = example.replace(" partitions=3,", "")
    done = without_suite(example + "\nprint(sparsifier.done)")
    assert done.stdout == "True\n", done.stderr
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == {
        "numpy", "pydantic", "torch"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["run", "Study"])
def test_without_the_suite_it_is_named(name):
    done = without_suite(f"import gapbench; gapbench.{name}")
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"ImportError: gapbench.{name} needs ")
    assert line.endswith(": pip install 'gapbench[suite]'")


def test_the_command_without_the_suite_is_one_line():
    done = without_suite("from gapbench.__main__ import main")
    told = "gapbench: the commands need typer: pip install 'gapbench[suite]'\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_the_licences_of_all_that_is_shipped_are_named():
    assert PROJECT["license"] == "Apache-2.0 AND MPL-2.0"
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file()
    assert "Mozilla Public License" in (ROOT / PROJECT["license-files"][1]).read_text()


@pytest.mark.slow
def test_a_wheel_has_the_ablations_and_works_in_an_empty_folder(tmp_path):
    """The wheel is built and unpacked as pip does it, beside what is installed here."""
    source = tmp_path / "source"  # a build leaves its folders there
    left = shutil.ignore_patterns(".*", "build", "*.egg-info", "results", "tests", "__pycache__")
    shutil.copytree(ROOT, source, ignore=left)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("gapbench-*.whl")
    home, empty = tmp_path / "home", tmp_path / "empty"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install.append("--ignore-installed")
    subprocess.run([*install, "--prefix", home, wheel], check=True, capture_output=True)
    (site,) = home.glob("lib/python*/site-packages")
    empty.mkdir()
    program = (
        "import sys, sysconfig, gapbench; assert gapbench.__file__.startswith(sys.argv[1]); "
        "own = sysconfig.get_path; sysconfig.get_path = "
        "lambda name: sys.argv[1] if name == 'data' else own(name); "
        "from gapbench.__main__ import main; sys.exit(main(sys.argv[2:]))"
    )
    line = ["run", "partitions", "--scale", "smoke", "--seeds", "1", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", program, str(home), *line],
        cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "5 trials" in done.stdout and list(empty.iterdir()) == []
    assert not (home / "ablations").exists()
