"""What a forked child lets go of, and when."""

from __future__ import annotations

import pytest

from tests.support.processes import PythonProcess

PROGRAM = """
import ctypes, os, sys, threading, time
from amphora.net import forks

done = []

def use():
    forks.notice()
    done.append("used by another thread")

def let_go():
    global thread
    thread = threading.Thread(target=use)
    thread.start()
    time.sleep(0.1)
    done.append("let go")
    # Whoever lets go names things anew, which notices as well.
    forks.notice()

forks.in_child(let_go)
pid = ctypes.PyDLL(None).fork() if sys.argv[1] == "in C" else os.fork()
if not pid:
    forks.notice()
    thread.join()
    forks.notice()
    print(*done, sep=", ", flush=True)
    os._exit(0)
forks.notice()
print("child's exit status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), done)
"""


def test_no_thread_of_a_child_forked_in_c_uses_what_is_its_parents() -> None:
    with PythonProcess("-c", PROGRAM, "in C") as program:
        assert program.wait() == 0
    assert program.printed == ["let go, used by another thread", "child's exit status 0 []"]


def test_a_child_lets_go_once_of_what_is_its_parents() -> None:
    with PythonProcess("-c", PROGRAM, "in Python") as program:
        assert program.wait() == 0
    (child, parent) = program.printed
    assert sorted(child.split(", ")) == ["let go", "used by another thread"]
    assert parent == "child's exit status 0 []"


INTERRUPTED = """
import ctypes, os, signal, sys
from amphora.net import forks

done = []

def interrupted():
    done.append("first")
    signal.raise_signal(signal.SIGINT)

forks.in_child(interrupted)
forks.in_child(lambda: done.append("second"))
pid = ctypes.PyDLL(None).fork() if sys.argv[1] == "in C" else os.fork()
if not pid:
    try:
        forks.notice()
    except KeyboardInterrupt:
        done.append("interrupted")
    forks.notice()
    print(*done, sep=", ", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(
    ("way", "done"), [("in C", "first, second, interrupted"), ("in Python", "first, second")]
)
def test_a_child_that_is_interrupted_lets_go_of_all_that_is_its_parents(
    way: str, done: str
) -> None:
    with PythonProcess("-c", INTERRUPTED, way) as program:
        assert program.wait() == 0
    assert program.printed == [done]
