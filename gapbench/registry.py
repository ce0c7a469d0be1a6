"""Registries: how methods, tasks, distributions, executors and figures are found by name.

A registry imports the modules of its package, and the entry points of its group
(`gapbench.methods`, `gapbench.tasks`, `gapbench.distributions`, ...), the first time a name is
asked for, so that a plug-in needs no change in this package and `gapbench --help` imports nothing
heavy.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from gapbench.errors import UserError, choose

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind, filled by a decorator.

    Args:
        kind: singular noun for messages ("method"); its plural is the entry points' group.
        package: the module, or the package with modules, that registers names when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its object under `name`; a second owner is an error."""

        def add(entry: T) -> T:
            known = self._entries.get(name)
            if known is not None and _origin(known) != _origin(entry):
                raise UserError(
                    f"{self.kind} {name!r} is registered twice: by {_origin(known)} "
                    f"and by {_origin(entry)}"
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
            try:
                point.load()
            except UserError:
                raise
            except (Exception, SystemExit) as error:
                raise UserError(
                    f"plug-in {point.name} = {point.value} cannot be imported: "
                    f"{type(error).__name__}: {error}"
                ) from error


def _origin(entry: object) -> str:
    """Return where an entry was written: an entry may know better than its own class does."""
    known = getattr(entry, "origin", None)
    return known or f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', entry)}"
