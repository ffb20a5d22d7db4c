"""Run the tests, and report which branches they do not take."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import sysconfig
import tempfile
from itertools import chain
from pathlib import Path

from coverage import Coverage
from coverage.python import PythonFileReporter

from tests.branches.marking import Meaning, mark

ROOT = Path(__file__).resolve().parents[2]
LOADING = str(ROOT / "tests" / "branches" / "loading.py")
# Each Python of this environment runs the lines of such a file when it starts.
HOOK = Path(sysconfig.get_path("purelib")) / "amphora_branches.pth"
RUN_LOADING = (
    "import os, _frozen_importlib_external as loaders; os.environ.get('AMPHORA_BRANCHES') and "
    f"exec(loaders.SourceFileLoader('loading', {LOADING!r}).get_code('loading'), {{}})\n"
)


class Run:
    """A measured run of a command.

    Args:
        folder: where its files are.
        modules: the name and the file of each module that is measured.
    """

    def __init__(self, folder: Path, modules: dict[str, Path]) -> None:
        self._folder = folder
        self._meanings: dict[Path, list[Meaning]] = {}
        first = 0
        for name, path in modules.items():
            source = path.read_bytes()
            code, self._meanings[path] = mark(source, str(path), first)
            first += len(self._meanings[path])
            (folder / f"{name}-{len(source)}").write_bytes(marshal.dumps(code))
        (folder / "marks").write_bytes(bytes(first))

    def call(self, command: list[str]) -> int:
        """Run the command, and return its status."""
        environment = {**os.environ, "AMPHORA_BRANCHES": str(self._folder)}
        HOOK.write_text(RUN_LOADING)
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            HOOK.unlink(missing_ok=True)

    def tell(self, coverage: Coverage) -> None:
        """Tell coverage.py what was marked."""
        marks = iter((self._folder / "marks").read_bytes())
        arcs = {}
        for path, meanings in self._meanings.items():
            taken = [meaning for meaning in meanings if next(marks)]
            arcs[str(path)] = arcs_of(taken, PythonFileReporter(str(path), coverage).arcs())
        coverage.get_data().add_arcs(arcs)


def find_modules() -> dict[str, Path]:
    """Return the name and the file of each module of amphora."""
    paths = [*(ROOT / "amphora").rglob("*.py"), ROOT / "pytest_amphora.py"]
    parts = (path.relative_to(ROOT).with_suffix("").parts for path in paths)
    return {
        ".".join(each).removesuffix(".__init__"): path
        for each, path in zip(parts, paths, strict=True)
    }


def arcs_of(taken: list[Meaning], possible: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the arcs of coverage.py that were taken, from what marks mean."""
    ends: dict[int, set[int]] = {}
    for line, end in possible:
        ends.setdefault(line, set()).add(end)
    arcs = set()
    for line, end in chain.from_iterable(taken):
        if end > 0:
            arcs.add((line, end))
        else:
            arcs.update((line, other) for other in ends.get(line, set()) - {-end})
    return arcs


def main(arguments: list[str]) -> int:
    """Run the tests and report; return pytest's status, or 2 if less is tested than was."""
    processes = os.environ.get("AMPHORA_TEST_PROCESSES", "6")
    command = [sys.executable, "-m", "pytest", "-n", processes, "--dist", "worksteal", *arguments]
    if arguments:
        return subprocess.run(command, check=False).returncode
    coverage = Coverage(data_file=str(ROOT / ".coverage"), config_file=str(ROOT / "pyproject.toml"))
    coverage.erase()
    with tempfile.TemporaryDirectory(prefix="amphora-branches-") as folder:
        run = Run(Path(folder), find_modules())
        status = run.call(command)
        run.tell(coverage)
    coverage.save()
    share = coverage.report()
    wanted = coverage.get_option("report:fail_under")
    assert isinstance(wanted, int | float)
    if share >= wanted:
        return status
    print(f"{share:.1f} % of amphora is tested, and it has to be {wanted} %.")
    print("`coverage report -m` and `coverage html` tell what is not.")
    return status or 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
