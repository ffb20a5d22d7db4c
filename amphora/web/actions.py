"""What the page of the dashboard may do, if that is allowed."""

from __future__ import annotations

# What may be allowed, and the management commands for it.
ACTIONS = {
    "kill": ("kill",),
    "pause": ("pause", "resume"),
    "cancel": ("cancel",),
    "retry": ("retry",),
    "drop": ("drop",),
}
# Those commands that one worker carries out, whichever has them.
ANY_WORKER = frozenset(("retry", "drop"))
