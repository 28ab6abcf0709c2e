"""Find a thing by name: every file of a family folder is imported once, and each names what it adds.

samplers: Registry[type[LogitsProcessor]] = Registry("pellucid.sampling")

@samplers.register("top_k")
class TopK: ...

samplers["top_k"]       # imports the family's files the first time
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pellucid.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one family; the family is the package `package`."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._entries: dict[str, T] = {}
        self._scanned = self._scanning = False
        self._lock = threading.RLock()

    def register(self, *names: str) -> Callable[[T], T]:
        def add(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise RuntimeError(f"{self._package}: '{name}' is registered twice")
                self._entries[name] = entry
            return entry

        return add

    def _scan(self) -> None:
        """Another thread waits until it is done: nobody is to see half of a family."""
        if self._scanned:
            return
        with self._lock:
            if self._scanned or self._scanning:  # a file of the family asks, amid its own import
                return
            self._scanning = True
            try:
                folder = importlib.import_module(self._package)
                for module in sorted(m.name for m in pkgutil.iter_modules(folder.__path__)):
                    importlib.import_module(f"{self._package}.{module}")
                self._scanned = True
            finally:
                self._scanning = False

    def __getitem__(self, name: str) -> T:
        if name not in self._entries and name.isidentifier():
            # Most things are named as their file is: the others of the family need not be imported.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"{self._package}.{name}")
        if name not in self._entries:
            self._scan()
        if name not in self._entries:
            family = self._package.rpartition(".")[2]
            raise UsageError(f"no '{name}' in {family}; there are: {', '.join(sorted(self._entries))}")
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        self._scan()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._entries))
