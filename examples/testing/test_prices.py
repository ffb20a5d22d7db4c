from prices import total


def test_an_order_costs_the_sum_of_its_fruits(amphora_server, amphora_client):
    amphora_server("prices", total)
    assert amphora_client("prices").call.total({"apple": 2, "pear": 1}) == 105
