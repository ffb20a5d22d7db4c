"""The brokers and the fixtures of the tests of remote calls."""

from tests.rpc.conftest import *  # noqa: F403 (fixtures are found by name)
