"""Exchanges with a broker that are the same on every one, to the last code and text."""

from tests.broker.scripts import connections, consuming, declaring, publishing

__all__ = ["connections", "consuming", "declaring", "publishing"]
