"""Run the programs of a folder one by one, beside its server: `run_snippets.py FOLDER PROGRAM...`.

Each is a fork of this process, which has imported amphora for all of them; a program that patches
Python is begun afresh.  A line of JSON tells how each has ended, and what it printed.  The server
is a fork as well.  It has to end after a program whose name is given with a `!` behind it.
"""

import json
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path
from typing import IO

import gevent._hub_local

import amphora

for name in amphora.__all__:
    getattr(amphora, name)  # those that are imported when they are used
assert gevent._hub_local.get_hub_if_exists() is None  # or the forks would share it


def start(program: Path, output: IO[str], errors: IO[str]) -> int:
    """Run a program in a child; return the child's process id."""
    if child := os.fork():
        return child
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    if "monkey" in program.read_text(encoding="utf-8"):
        os.execv(sys.executable, [sys.executable, "-W", "error", str(program)])
    sys.argv = [str(program)]
    sys.path[0] = str(program.parent)
    runpy.run_path(str(program), run_name="__main__")
    sys.exit()  # as a program does that has come to its end


def run(program: Path) -> int:
    """Run a program to its end, tell what it did, and return its status."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        _, status = os.waitpid(start(program, output, errors), 0)
        output.seek(0)
        errors.seek(0)
        told = {
            "program": program.name,
            "status": os.waitstatus_to_exitcode(status),
            "output": output.read().splitlines(),
            "errors": errors.read(),
        }
    print(json.dumps(told))
    return status


def main(folder: Path, *names: str) -> None:
    """Run programs until one fails."""
    here, server = os.getpid(), 0
    try:
        for name in names:
            if not server and (folder / "server.py").exists():
                server = start(folder / "server.py", sys.stderr, sys.stderr)
            if run(folder / name.removesuffix("!")):
                sys.exit(1)
            if name.endswith("!"):
                os.waitpid(server, 0)
                server = 0
    finally:
        if server and os.getpid() == here:  # the programs leave by this way, too
            os.kill(server, signal.SIGKILL)


main(Path(sys.argv[1]), *sys.argv[2:])
