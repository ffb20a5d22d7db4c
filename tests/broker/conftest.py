"""Fixtures of the embedded broker's model."""

from __future__ import annotations

import pytest

from tests.broker.world import Client, World


@pytest.fixture
def world() -> World:
    """An empty virtual host."""
    return World()


@pytest.fixture
def client(world: World) -> Client:
    """A client of it."""
    return world.client()
