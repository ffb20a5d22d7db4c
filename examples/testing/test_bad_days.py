import pytest
from prices import total

from amphora import NoResult, RemoteException


@pytest.fixture
def client(amphora_server, amphora_client):
    amphora_server("prices", total)
    return amphora_client("prices", timeout=60.0)


def test_an_unknown_fruit_is_an_error_for_the_caller(client):
    with pytest.raises(RemoteException, match="KeyError: plum"):
        client.call.total({"plum": 1})


def test_orders_come_through_while_the_broker_restarts(client, amphora_broker):
    amphora_broker.restart()
    assert client.call.total({"apple": 1}) == 30


def test_an_answer_that_is_lost_is_not_waited_for_for_ever(amphora_clock, client, amphora_broker):
    amphora_broker.lose_answers()
    result = client.defer.total({"apple": 1})
    amphora_clock.advance(60)
    with pytest.raises(NoResult):
        result.get()


def test_an_order_that_comes_twice_costs_the_same(client, amphora_broker):
    amphora_broker.duplicate_messages(queue="rpc_prices_request")
    assert client.call.total({"apple": 1}) == 30


def test_a_client_comes_back(client, amphora_broker):
    client.call.total({})
    amphora_broker.kill_connections(client)
    assert client.call.total({"apple": 1}) == 30


def test_orders_wait_while_the_broker_is_low_on_memory(client, amphora_broker):
    amphora_broker.alarm()
    result = client.defer.total({"pear": 2})
    assert not result.ready()
    amphora_broker.alarm(False)
    assert result.get() == 90
