"""The environment of a run: recorded beside its results, never part of a trial's identity."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "gapbench",
    "torch",
    "torchvision",
    "fairseq",
    "sacred",
    "submitit",
    "numpy",
)


def environment() -> dict[str, str | bool | None]:
    """Return versions, the git state of the package's folder, and the hardware."""
    import torch

    commit, dirty = git_state(Path(__file__).parent.parent)
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "git_commit": commit,
        "git_dirty": dirty,
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a package and whether it has changes; (None, None) outside of git.

    A package that is installed below another project, such as in a `.venv`, is outside of git.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        head = _git(folder, "rev-parse", "HEAD")
        return head, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None, None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
