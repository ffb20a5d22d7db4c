"""The `amphora` command.

`root` has the group of all commands and ends the process.  Each other file has a group of commands,
or something that they share: `failures` has the exit codes, `output` the printing.
"""

from amphora.cli.root import main

__all__ = ["main"]
