"""Plants a bug: the modules of the exchange that it concerns are changed as they are imported.

The product knows nothing of it. Every process that inherits the environment has the bug, the one that checks the
history too, as it would have a real one. Modules that are compiled cannot be changed, so with a bug planted all of the
exchange runs from its sources.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from chaos.mutants.bugs import BUGS, Bug

VARIABLE = "CHAOS_MUTANT"
HOOK = Path(__file__).parent / "hook"
ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = "exchange."


class _BuggyLoader(Loader):
    """Loads a module as ever, then changes it."""

    def __init__(self, loader: Loader, bug: Bug) -> None:
        self._loader = loader
        self._bug = bug

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._bug.change(module)


class _SourceFinder(MetaPathFinder):
    """Finds the exchange's modules by their sources, and the one that has the bug."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(_PACKAGE):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None:
            return spec
        source = Path(spec.origin.partition(".")[0] + ".py") if spec.origin.endswith(".so") else None
        if source is not None and source.exists():
            spec = importlib.util.spec_from_file_location(name, source)
        if spec is not None and spec.loader is not None and name == self._bug.module:
            spec.loader = _BuggyLoader(spec.loader, self._bug)
        return spec


def plant(name: str) -> None:
    """Have this process's exchange have the bug of that name."""
    sys.meta_path.insert(0, _SourceFinder(BUGS[name]))


def environment_with(name: str) -> dict[str, str]:
    """Return the environment in which all Python processes have the bug."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(HOOK), str(ROOT), *([before] if before else [])]
    return {**os.environ, VARIABLE: name, "PYTHONPATH": os.pathsep.join(paths)}
