import unittest

from prices import total

from amphora import AmqpRpcClient, AmqpRpcServer, NoResult
from amphora.testing import Broker, Calls, Clock, add_mocks


class PricesTest(unittest.TestCase):
    def setUp(self):
        self.clock = self.enterContext(Clock())
        self.broker = self.enterContext(Broker())
        self.calls = self.enterContext(Calls())
        self.server = self.enterContext(AmqpRpcServer("prices", url=self.broker.url))
        self.client = self.enterContext(AmqpRpcClient("prices", url=self.broker.url))

    def test_an_order_costs_the_sum_of_its_fruits(self):
        self.server.add_function(total)
        self.server.serve()
        self.assertEqual(self.client.call.total({"apple": 2, "pear": 1}), 105)

    def test_a_mock_stands_for_the_function(self):
        prices = add_mocks(self.server, total)
        prices.total.return_value = 7
        self.server.serve()
        self.assertEqual(self.client.call.total({"apple": 2}), 7)
        prices.total.assert_called_once_with({"apple": 2})

    def test_a_call_whose_answer_is_lost_ends(self):
        self.server.add_function(total)
        self.server.serve()
        self.broker.lose_answers()
        result = self.client.defer(timeout=60).total({"apple": 1})
        self.broker.wait_until_served()
        self.clock.advance(60)
        self.assertRaises(NoResult, result.get)
        (served,) = self.calls.served
        self.assertEqual(served.result, 30)


if __name__ == "__main__":
    unittest.main()
