import gevent
import pytest
from prices import total
from shop import sell

from amphora import NoResult


def slow_total(order):
    gevent.sleep(40)
    return total(order)


def late_total(order):
    gevent.sleep(90)
    return total(order)


def test_a_minute_without_an_answer(amphora_clock, amphora_server, amphora_client):
    amphora_server("prices", late_total)
    result = amphora_client("prices").defer(timeout=60).late_total({"apple": 1})
    amphora_clock.advance(59)
    assert not result.ready()
    amphora_clock.advance(1)
    with pytest.raises(NoResult, match="within 60 s"):
        result.get()
    amphora_clock.advance(30)  # now the function returns as well


def test_code_that_waits_runs_beside_the_clock(amphora_clock, amphora_server):
    server = amphora_server("prices")
    server.add_function(slow_total, "total")
    selling = gevent.spawn(sell, {"apple": 1}, "alice@example.com")
    amphora_clock.advance(40)
    assert selling.get() == "0.30"
