"""Signs of life: whether a peer still says something, finishes what it began, and reads."""

from __future__ import annotations

from amphora.net import clock
from amphora.net.writer import Writer


class Liveness:
    """What is known of a peer by the clock.

    Args:
        peer: what it is called.
        writer: what is written to it.
        frame_limit: seconds within which a frame that has begun must be complete.
        heartbeat: seconds between signs of life; 0 if there need not be any.
        write_limit: seconds within which the peer must read something of what is written to it.

    Attributes:
        peer, heartbeat, write_limit: as given.
    """

    def __init__(
        self,
        peer: str,
        writer: Writer,
        frame_limit: float,
        heartbeat: float = 0,
        write_limit: float = 0,
    ) -> None:
        self.peer = peer
        self.heartbeat = heartbeat
        self.write_limit = write_limit
        self._writer = writer
        self._frame_limit = frame_limit
        self._last_read = clock.monotonic()
        # When the latest frame began of which only a part may have come.
        self._frame_began = self._last_read

    def heard(self, size: int, held_before: int, held: int) -> None:
        """Note that bytes came.

        Args:
            size: how many.
            held_before: how many of an incomplete frame there were before them.
            held: how many there are now.
        """
        self._last_read = clock.monotonic()
        if not held_before or held != held_before + size:
            self._frame_began = self._last_read

    def excuse(self) -> None:
        """Count the peer's silence from now on: nothing was read that it may have said."""
        self._last_read = self._frame_began = clock.monotonic()

    def heartbeat_due(self) -> bool:
        """Return whether it is time to give a sign of life."""
        if not self.heartbeat or self._writer.unwritten:
            return False
        return clock.monotonic() - self._writer.last_write >= self.heartbeat / 2

    def overdue(self, held: int, *, must_read: bool = True) -> str | None:
        """Return what the peer should have done long ago, None if there is nothing.

        Args:
            held: how many bytes of an incomplete frame there are.
            must_read: False if the peer has said that it does not read now.
        """
        now = clock.monotonic()
        if self.heartbeat and now - self._last_read > 2 * self.heartbeat:
            return f"nothing heard from {self.peer} for {2 * self.heartbeat:g} s"
        if held and now - self._frame_began > self._frame_limit:
            return f"{self.peer} has not finished a frame within {self._frame_limit:g} s"
        since = self._writer.stuck_since
        if must_read and since is not None and now - since > self.write_limit:
            return f"{self.peer} has not read anything for {self.write_limit:g} s"
        return None
