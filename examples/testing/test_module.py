import pytest
from prices import total


@pytest.fixture(scope="module")
def prices(module_amphora_server, module_amphora_client):
    module_amphora_server("prices", total)
    return module_amphora_client("prices")


def test_an_apple(prices):
    assert prices.call.total({"apple": 1}) == 30


def test_a_pear(prices):
    assert prices.call.total({"pear": 1}) == 45


def test_with_a_client_of_its_own(prices, amphora_client, module_amphora_broker):
    mine = amphora_client("prices", url=module_amphora_broker.url, timeout=10.0)
    assert mine.call.total({"apple": 1, "pear": 1}) == 75
