"""Registries: how methods, tasks, distributions, executors and figures are found by name.

A registry is filled the first time a name is looked up. It imports the modules of its package, the
entry points of its group (`gapbench.methods`, `gapbench.tasks`, `gapbench.distributions`, ...), and
the files in $GAPBENCH_PLUGINS. So a plug-in needs no change in this package, and `gapbench --help`
imports nothing heavy.
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from gapbench.errors import UserError, choose

PLUGINS = "GAPBENCH_PLUGINS"

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind, filled by a decorator.

    Args:
        kind: singular noun for messages ("method"); its plural names the group of entry points.
        package: the module or package whose modules register names when they are imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its object as `name`; a second object is an error."""

        def add(entry: T) -> T:
            known = self._entries.get(name)
            if known is not None and _origin(known) != _origin(entry):
                raise UserError(
                    f"{self.kind} {name!r} is registered twice: by {_origin(known)} "
                    f"and by {_origin(entry)}: rename one"
                )
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        self._scan()
        if name not in self._entries:
            raise UserError(choose(self.kind, name, self._entries))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._entries))

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True  # before the imports: a module may look up its siblings
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=f"gapbench.{self.kind}s"):
            _imported(f"{point.name} = {point.value}", point.load)
        for file in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
            load_plugin(Path(file))


def load_plugin(file: Path) -> None:
    """Import a Python file that registers methods, tasks or others, here and in child processes.

    Raises:
        UserError: if the file cannot be imported, or another file of the same name is loaded.
    """
    path = file.resolve()
    name = f"gapbench_plugin_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ != str(path):
        raise UserError(f"plug-in {file}: has the name of {loaded.__file__}: rename one of them")
    if loaded is None:
        _imported(str(file), lambda: _load(path, name))
    known = os.environ.get(PLUGINS, "").split(os.pathsep)
    if str(path) not in known:
        os.environ[PLUGINS] = os.pathsep.join([*filter(None, known), str(path)])


def _load(path: Path, name: str) -> None:
    if str(path.parent) not in sys.path:  # modules beside it; at the end they replace no library
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {path}: is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _imported(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}"
        raise UserError(f"plug-in {what} cannot be imported: {told}") from error


def _origin(entry: object) -> str:
    """Return where an entry is defined: its attribute `origin`, else its module and name."""
    known = getattr(entry, "origin", None)
    return known or f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', entry)}"
