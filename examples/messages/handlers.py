"""The amphora side of an API server: the pages that are open here, each on the queue of its user.

A message is acknowledged when the page says that it has it, and not before.  So it is not lost,
however a page ends: tab closed, network gone, this process killed.  The broker still has it, and
gives it to the next page of that user, on whichever API server that is.
"""

import gevent
from gevent.event import Event
from gevent.local import local

from amphora import AmqpRpcClient, AmqpRpcServer, Session

# Seconds without a poll after which a page is taken for closed.
GRACE = 5.0

session = Session()
server = AmqpRpcServer("messages", session=session)
core = AmqpRpcClient("core", session=session, timeout=10.0)

# By user and page id: a user may have several pages, here and elsewhere.
pages = {}
# What belongs to the current greenlet.
here = local()


@server.add_function
def show_message(username, message):
    here.page.show(message)


def page_of(username, page_id):
    """Return a page that is open, or open it."""
    key = username, page_id
    if key not in pages:
        pages[key] = Page(key)
    return pages[key]


class Page:
    """One page in a browser, which takes the messages of its user one after the other."""

    def __init__(self, key):
        self.key = key
        self._message = None
        self._offered = Event()
        self._seen = Event()
        self._polls = 0
        self._receiver = gevent.spawn(self._receive)
        self._closing = gevent.spawn_later(GRACE, self.close)

    def _receive(self):
        here.page = self  # show_message runs in this greenlet
        username, _ = self.key
        server.receive_from_queue(username)

    def show(self, message):
        """Hold a message until the page has seen it."""
        self._message = message
        self._seen.clear()
        self._offered.set()
        self._seen.wait()

    def poll(self, seen, timeout):
        """Return the message after the one with the id `seen`; None if none comes in time."""
        self._closing.kill()
        self._polls += 1
        try:
            if self._offered.is_set() and self._message["id"] == seen:
                self._offered.clear()
                self._seen.set()
            return self._message if self._offered.wait(timeout) else None
        finally:
            self._polls -= 1
            if not self._polls:
                self._closing = gevent.spawn_later(GRACE, self.close)

    def close(self):
        """Forget the page.  A message that it has not seen goes back to the queue."""
        if pages.get(self.key) is self:
            del pages[self.key]
        self._receiver.kill(block=False)
