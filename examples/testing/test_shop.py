from unittest.mock import call

import mails
import prices
import pytest
from shop import sell

from amphora import RemoteException, WrongRequest


@pytest.fixture
def mocks(amphora_mock):
    mocks = amphora_mock("prices", prices.total)
    mocks.total.return_value = 105
    amphora_mock("mails", mails.send)
    return mocks


def test_a_mock_answers_in_the_place_of_the_service(mocks):
    assert sell({"apple": 2, "pear": 1}, "alice@example.com") == "1.05"
    mocks.total.assert_called_once_with({"apple": 2, "pear": 1})


def test_a_service_may_fail(mocks):
    mocks.total.side_effect = KeyError("plum")
    with pytest.raises(RemoteException, match="KeyError: plum"):
        sell({"plum": 1}, "alice@example.com")


def test_what_the_real_service_would_refuse_is_refused(mocks):
    with pytest.raises(WrongRequest, match="Expected `int`, got `str`"):
        sell({"apple": "two"}, "alice@example.com")
    mocks.total.assert_not_called()


def test_which_calls_were_made(mocks, amphora_calls, amphora_broker):
    sell({"apple": 2, "pear": 1}, "alice@example.com")
    amphora_broker.wait_until_served()
    assert [each.name for each in amphora_calls] == ["prices.total", "mails.send"]
    (mail,) = amphora_calls.of("mails.send")
    assert mail.mode == "cast"
    assert mail.arguments == call("alice@example.com", text="1.05 please")
    (served,) = amphora_calls.of("prices").served
    assert served.result == 105
    assert served.outcome.status == "OK"
