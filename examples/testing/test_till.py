import pytest
import till
from prices import total


@pytest.fixture(autouse=True)
def prices(amphora_server, amphora_client, monkeypatch):
    amphora_server("prices", total)
    monkeypatch.setattr(till, "prices", amphora_client("prices"))


def test_a_receipt_has_the_sum():
    assert till.receipt({"apple": 2, "pear": 1}) == "1.05 euros"
