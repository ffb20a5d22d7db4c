"""More time for a broker that has to answer soon.

Where the broker only helps amphora to say more, or to decide better, amphora waits for it a second
or less, and goes on without; and after a few seconds without an answer it says so.  On a machine
that is busy with other tests a broker may take longer, and then a test would see what is there for
brokers that do not answer.
"""

from __future__ import annotations

import pytest

from amphora.gateway import directory
from amphora.rpc.client import announcer, declared, offers
from amphora.rpc.client.workers import liveness, presence, roll_call, unserved
from amphora.rpc.keyed import announcements
from amphora.rpc.server.operators import roll_call_queue
from amphora.rpc.server.requests import admission
from amphora.transport.consuming import lookout

SECONDS = 20.0
HURRIED = [
    (admission, "NOTE_TIMEOUT"),
    (announcements, "BEGIN_TIMEOUT"),
    (announcer, "ANNOUNCE_TIMEOUT"),
    (declared, "TIMEOUT"),
    (directory, "TIMEOUT"),
    (liveness, "LOOK_TIMEOUT"),
    (lookout, "LOOK_TIMEOUT"),
    (offers, "TIMEOUT"),
    (presence, "TELL_WITHIN"),
    (roll_call, "TIMEOUT"),
    (roll_call_queue, "TIMEOUT"),
    (unserved, "PATIENCE"),
    (unserved, "TIMEOUT"),
]


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have amphora wait longer for brokers in this process, until the test is over."""
    for module, name in HURRIED:
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, SECONDS)
