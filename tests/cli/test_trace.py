"""`amphora trace`: the time of each hop of one call."""

from __future__ import annotations

import gevent
import pytest

from amphora import NoResult, Session, Unroutable
from amphora.cli.calling.trace import rows
from amphora.rpc.client.hops import Hops, trace_call
from tests.cli.conftest import Amphora
from tests.support.rpc import MakeClient, MakeServer, add


def test_the_times_of_all_hops_are_told(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    def nap(seconds: float) -> str:
        gevent.sleep(seconds)
        return "rested"

    server = make_server(nap)
    told = amphora("trace", f"{namespace}.nap", "0.05", "--json").json
    assert (told["worker"], told["result"]) == (server.worker_id, "rested")
    assert told["took"] >= 0.05
    assert told["in_all"] >= told["took"]
    assert told["on_the_way"] == pytest.approx(
        told["in_all"] - told["took"] - (told["waited"] or 0.0)
    )
    assert told["confirmed"] is None or told["confirmed"] > 0
    outcome = amphora("trace", f"{namespace}.nap", "seconds=0.01")
    assert [line.split()[0] for line in outcome.out.splitlines()] == [
        *("hop", "in", "at", "on", "in", "confirmed")
    ]
    assert server.worker_id in outcome.out
    assert 'it returned "rested"' in outcome.err


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_function_that_raises_is_traced_as_well(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(add)
    outcome = amphora("trace", f"{namespace}.add", "1", '"one"')
    assert outcome.code == 1
    assert server.worker_id in outcome.out
    assert "TypeError" in outcome.err
    told = amphora("trace", f"{namespace}.subtract", "1", "--json")
    assert told.code == 7
    assert told.json["error"]["type"] == "WrongRequest"
    assert told.json["took"] >= 0


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_request_that_nobody_answers_or_takes_is_an_error(
    make_server: MakeServer, make_client: MakeClient, url: str, namespace: str
) -> None:
    make_server(gevent.sleep)
    make_client().create_new_request_queue("key", x_expires=60)
    with Session(url) as session:
        with pytest.raises(NoResult, match=r"did not answer within 4 s"):
            trace_call(session, namespace, "sleep", [60], {}, timeout=4.0)
        with pytest.raises(Unroutable):
            trace_call(session, namespace, "sleep", [0], {}, timeout=20, routing_key="other")
        with pytest.raises(NoResult):
            trace_call(session, namespace, "sleep", [0], {}, timeout=4.0, routing_key="key")


def test_an_older_worker_tells_nothing() -> None:
    hops = Hops("", None, None, 0.001, None, None, None, 0.01)
    times = {name: (time, said) for name, time, said in rows(hops)}
    assert times["in the queue"] == ("-", "unknown")
    assert times["at the worker"] == ("-", "an older worker, which does not tell")
    assert times["in all"] == ("10 ms", "")
