"""What each Python of a measured run does first: see to it that amphora marks what it takes.

The folder in AMPHORA_BRANCHES has the marked code of each module, under the module's name and the
size of its source, and the file of all marks, which each process maps into its memory.

Programs are started by the hundred, so this imports nothing that a Python does not load anyway.
"""

from __future__ import annotations

import os
import sys
from _imp import _fix_co_filename  # type: ignore[attr-defined]
from importlib._bootstrap_external import PathFinder, SourceFileLoader
from marshal import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

FOLDER = os.environ["AMPHORA_BRANCHES"]
PACKAGES = ("amphora", "pytest_amphora")

find_spec = PathFinder.find_spec


class MarkedLoader:
    """Load a module from its marked code, and do all else as another loader.

    It is no SourceFileLoader itself: of those pytest takes the source, for its assert statements.
    """

    def __init__(self, loader: SourceFileLoader, file: str) -> None:
        self._loader = loader
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Return the module's code."""
        import builtins

        if "amphora_marks" not in vars(builtins):
            from mmap import mmap

            with open(f"{FOLDER}/marks", "r+b") as file:
                vars(builtins)["amphora_marks"] = mmap(file.fileno(), 0)
        with open(self._file, "rb") as file:
            code: CodeType = load(file)
        _fix_co_filename(code, self._loader.path)
        return code


def find_marked_spec(_: type, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    """Find a module as usual, but load it from its marked code if there is any."""
    spec: ModuleSpec | None = find_spec(name, path, target)
    if name.partition(".")[0] in PACKAGES and spec and type(spec.loader) is SourceFileLoader:
        file = f"{FOLDER}/{name}-{os.path.getsize(spec.loader.path)}"
        if os.path.exists(file):
            spec.loader = MarkedLoader(spec.loader, file)  # type: ignore[assignment]
    return spec


# The options -O and -OO change the code as well.
if not sys.flags.optimize:
    PathFinder.find_spec = classmethod(find_marked_spec)  # type: ignore[assignment, method-assign]
