from typing import TYPE_CHECKING

import prices

if TYPE_CHECKING:  # amphora is imported when a test asks for a fixture
    from amphora.testing import Broker, Calls, Clock, MakeClient, MakeMocks


def test_an_order_is_priced_once(
    amphora_broker: "Broker",
    amphora_calls: "Calls",
    amphora_client: "MakeClient",
    amphora_clock: "Clock",
    amphora_mock: "MakeMocks",
) -> None:
    mocks = amphora_mock("prices", prices.total)
    mocks.total.return_value = 105
    client = amphora_client("prices")
    assert client.call.total({"apple": 2, "pear": 1}) == 105
    amphora_broker.lose_answers()
    lost = client.defer(timeout=60).total({"pear": 1})
    amphora_clock.advance(60)
    assert lost.ready()
    assert [call.args for call in amphora_calls] == [({"apple": 2, "pear": 1},), ({"pear": 1},)]
