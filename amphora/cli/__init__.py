"""The `amphora` command.

`root` has the group of all commands and ends the process; each other file is a group of commands
or what they share.  How commands fail is in `failures`, what they print in `output`.
"""

from amphora.cli.root import main

__all__ = ["main"]
