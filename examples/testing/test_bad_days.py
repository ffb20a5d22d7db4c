import pytest
from prices import total

from amphora import NoResult, RemoteException


@pytest.fixture
def client(amphora_server, amphora_client):
    amphora_server("prices", total)
    return amphora_client("prices", timeout=10.0)


def test_an_unknown_fruit_is_an_error_for_the_caller(client):
    with pytest.raises(RemoteException, match="KeyError: plum"):
        client.call.total({"plum": 1})


def test_orders_come_through_while_the_broker_restarts(client, amphora_broker):
    amphora_broker.restart()
    assert client.call.total({"apple": 1}) == 30


def test_a_broker_that_does_not_answer_is_not_waited_for_for_ever(client, amphora_broker):
    client.call.total({})
    amphora_broker.freeze()
    with pytest.raises(NoResult):
        client.call(timeout=0.2).total({"apple": 1})


def test_orders_wait_while_the_broker_is_low_on_memory(client, amphora_broker):
    amphora_broker.alarm()
    result = client.defer.total({"pear": 2})
    assert not result.ready()
    amphora_broker.alarm(False)
    assert result.get() == 90
