"""Telling systemd the state of the pool, if the service asks for it (`Type=notify`).

See sd_notify(3) for the messages.  Each change is one datagram, which is sent without waiting: if
that fails, it is tried again in the next round.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from time import CLOCK_MONOTONIC, clock_gettime_ns, monotonic

# Variables for the process that systemd has started, and not for its children.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

STARTING = ""
READY = "READY=1"
RELOADING = "RELOADING=1"
STOPPING = "STOPPING=1"


def without_notify(environment: MutableMapping[str, str]) -> None:
    """Remove the variables that are not for the workers."""
    for name in VARIABLES:
        environment.pop(name, None)


class Notifier:
    """Tells a service manager of changes, and that the pool is alive.

    Args:
        environment: the environment of the process, which names the receiver.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL that begins an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._interval = _interval(environment)
        self._phase = STARTING
        self._status = ""
        self._fed = 0.0

    def phase(self, phase: str) -> None:
        """Send the phase of the pool: READY, RELOADING or STOPPING.  Sent once for each change."""
        text = phase
        if phase == RELOADING:
            text += f"\nMONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}"
        if phase != self._phase and self._send(text):
            self._phase = phase

    def status(self, status: str) -> None:
        """Send the state of the pool as a text for people.  Sent once for each change."""
        if status != self._status and self._send(f"STATUS={status}"):
            self._status = status

    def feed(self) -> None:
        """Send a sign of life, just often enough for the watchdog."""
        now = monotonic()
        # sd_watchdog_enabled(3) recommends half of it; the loop may be slightly late.
        if self._interval is not None and now - self._fed >= self._interval / 3:
            self._fed = now
            self._send("WATCHDOG=1")

    @property
    def next_feed(self) -> float | None:
        """The time at which `feed` is due, on the monotonic clock; None for never."""
        return None if self._interval is None else self._fed + self._interval / 3

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            # The manager is gone, or its socket is full.
            return False
        return True


def _interval(environment: Mapping[str, str]) -> float | None:
    """Return the seconds within which the watchdog expects a sign of life, None if it is off."""
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1_000_000
        owner = int(environment.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return seconds if seconds > 0 and owner == os.getpid() else None
