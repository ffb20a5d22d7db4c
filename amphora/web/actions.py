"""The actions that the dashboard's page may be allowed to take."""

from __future__ import annotations

# The actions that can be allowed, and their management commands.
ACTIONS = {
    "kill": ("kill",),
    "pause": ("pause", "resume"),
    "cancel": ("cancel",),
    "retry": ("retry",),
    "drop": ("drop",),
}
# The commands that any one worker that has them can carry out.
ANY_WORKER = frozenset(("retry", "drop"))
