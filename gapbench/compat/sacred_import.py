"""Imports sacred 0.8.7 without pkg_resources, which setuptools 81 removes.

Sacred asks pkg_resources for the installed distributions (names, versions, modules), and for the
path of one of its own files. While sacred is imported, a small module replaces pkg_resources and
answers these questions from the standard library. This module can be removed once sacred uses the
standard library itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class _Installed:
    """A distribution with the attributes that sacred reads."""

    distribution: Distribution

    @property
    def project_name(self) -> str:
        return self.distribution.name

    @property
    def version(self) -> str:
        return self.distribution.version

    def _get_metadata(self, name: str) -> list[str]:
        lines = (self.distribution.read_text(name) or "").splitlines()
        return [line for line in lines if line.strip()]


class _WorkingSet:
    """All installed distributions; of two with the same name, the first on the path counts."""

    @cached_property
    def by_key(self) -> dict[str, _Installed]:
        found: dict[str, _Installed] = {}
        for distribution in distributions():
            if distribution.name:  # what a broken uninstall leaves has none
                found.setdefault(distribution.name.lower(), _Installed(distribution))
        return found

    def __iter__(self) -> Iterator[_Installed]:
        return iter(self.by_key.values())


def _resource_filename(package: str, name: str) -> str:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / name)


@contextmanager
def _stand_in() -> Iterator[None]:
    name = "pkg_resources"
    before = {name: sys.modules[name]} if name in sys.modules else {}
    module = ModuleType(name)
    vars(module).update(working_set=_WorkingSet(), resource_filename=_resource_filename)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


with _stand_in():
    from sacred import SETTINGS, Experiment
    from sacred.observers import FileStorageObserver
    from sacred.utils import SacredInterrupt

__all__ = ["SETTINGS", "Experiment", "FileStorageObserver", "SacredInterrupt"]
