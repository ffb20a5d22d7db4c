"""A dashboard of the test's own, on a broker that it has for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from amphora import Session
from amphora.web.access import Access
from amphora.web.app import Application
from amphora.web.collecting import Collector
from amphora.web.serving import Server, listen
from tests.rpc.conftest import (  # noqa: F401 (fixtures)
    broker,
    make_client,
    make_server,
    make_session,
    run_program,
    url,
)

# Seconds between two rounds, and until a worker that is silent is shown no more.
INTERVAL = 0.4
GONE_AFTER = 3.0


class Dashboard(NamedTuple):
    """A dashboard that is served."""

    port: int
    collector: Collector
    access: Access


MakeDashboard = Callable[..., Dashboard]


@pytest.fixture
def collector(make_session: Callable[..., Session]) -> Iterator[Collector]:  # noqa: F811
    """What asks the workers."""
    made = Collector(make_session(), interval=INTERVAL, gone_after=GONE_AFTER)
    made.start()
    yield made
    made.close()


@pytest.fixture
def make_dashboard(collector: Collector) -> Iterator[MakeDashboard]:
    """Serve a dashboard."""
    with ExitStack() as made:

        def make(*allow: str, access: Any = None) -> Dashboard:
            listener = listen("127.0.0.1", 0)
            port = listener.getsockname()[1]
            access = access or Access("127.0.0.1", port)
            server = Server(listener, Application(collector, access, allow, "the.test:1"))
            server.start()
            made.callback(server.stop, 0)
            return Dashboard(port, collector, access)

        yield make
