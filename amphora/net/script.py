"""Whether a program has run its script to the end.

A program that ends by an exception, or by `sys.exit`, has said why.  One whose script ends may have
forgotten something.  At its exit the two look alike, except for the frame of the script: it stopped
at a return, or where the exception passed.
"""

from __future__ import annotations

import opcode
import sys
from collections.abc import Callable
from types import FrameType

# The outermost code of `python FILE` and `python -c`, and that of `python -m`.
_SCRIPTS = ("<module>", "_run_module_as_main")

# For `__del__`, as the default of an argument: at the end of the program modules are emptied before
# the last objects go, and then there is nothing left that could be ended.
program_ends: Callable[[], bool] = sys.is_finalizing

_script: FrameType | None = None


def note_script() -> None:
    """Note which script runs, if it is the script that calls this.

    It is not in a thread, in a greenlet, or where a server written in C has imported the program.
    """
    global _script
    if _script is not None:
        return
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    if frame.f_code.co_name in _SCRIPTS:
        _script = frame


def script_ended() -> bool:
    """Return whether the script has ended, and not by an exception.

    False for a person who types at Python's prompt, where each line is a script that ends, and for
    tests, whose workers end in this way.
    """
    if _script is None or hasattr(sys, "ps1") or "pytest" in sys.modules:
        return False
    instruction = _script.f_code.co_code[_script.f_lasti]
    return opcode.opname[instruction].startswith("RETURN")


def called_by_script() -> bool:
    """Return whether the script itself calls amphora, and not a module that it has imported."""
    frame: FrameType | None = sys._getframe()
    package = __name__.partition(".")[0]
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] != package:
            return bool(name == "__main__")
        frame = frame.f_back
    return False
