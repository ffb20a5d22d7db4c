"""`amphora serve`: workers in processes of their own, and what happens to them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import gevent
import pytest

from amphora import AmqpRpcClient, ManagementClient, WrongRequest
from amphora.cli.failures import Exit
from amphora.rpc.server.stop_signals import ONE_SIGNAL
from tests.cli.conftest import (
    PROGRAMS,
    TEXT,
    Serve,
    is_alive,
    on_rabbitmq,
    wait_for_workers,
    workers,
)
from tests.support.brokers import Broker, ManagedBroker
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeClient
from tests.support.slowness import without_slowness
from tests.support.waiting import wait_until


def stop_at_once(pool: PythonProcess) -> None:
    """Tell it to stop, and tell it again before it has."""
    pool.terminate()
    pool.wait_for("SIGTERM: stopping")
    gevent.sleep(ONE_SIGNAL + 0.1)
    pool.terminate()
    pool.wait_for("SIGTERM again: stopping at once")


# -- starting -------------------------------------------------------------------------------------


@on_rabbitmq
def test_workers_share_the_calls_and_sigterm_ends_them(
    serve: Serve, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    pool = serve("-w", 2)
    pids = wait_for_workers(pool, 2)
    client = make_client()
    assert {client.call.pid() for _ in range(50)} == set(pids)
    assert broker.consumers(f"rpc_{namespace}_request") == 2
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert broker.consumers(f"rpc_{namespace}_request") == 0
    assert not any(map(is_alive, pids))
    for said in ("keeps 2 workers of service", "SIGTERM: stopping", "all workers have stopped"):
        assert said in pool.output
    assert not [line for line in without_slowness(pool.lines) if "WARNING" in line]


@on_rabbitmq
@pytest.mark.parametrize(
    ("program", "directory"),
    [("service:make_server", PROGRAMS), ("programs.service", PROGRAMS.parent)],
)
def test_a_program_is_named_in_several_ways(
    serve: Serve, make_client: MakeClient, program: str, directory: Path
) -> None:
    pool = serve(program=program, cwd=directory)
    assert make_client().call.pid() in wait_for_workers(pool, 1)


@on_rabbitmq
def test_a_program_that_serves_by_itself_is_served(serve: Serve, make_client: MakeClient) -> None:
    pool = serve(program="script")
    assert [make_client().call.pid()] == wait_for_workers(pool, 1)
    pool.terminate()
    assert pool.wait() == Exit.DONE


@on_rabbitmq
def test_the_standard_library_is_patched_on_request(serve: Serve, make_client: MakeClient) -> None:
    serve("--patch")
    assert make_client().call.is_patched() is True


@on_rabbitmq
@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("nowhere", "there is no module 'nowhere'"),
        ("service:nothing", "has no 'nothing'; its servers are called server"),
        ("service:not_a_server", "is not a server"),
        ("broken", "SyntaxError: "),
    ],
)
def test_a_program_that_cannot_be_loaded_is_tried_once(
    serve: Serve, tmp_path: Path, program: str, complaint: str
) -> None:
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "service.py").write_text((PROGRAMS / "service.py").read_text())
    pool = serve("-w", 3, program=program, cwd=tmp_path)
    assert pool.wait() == Exit.USAGE
    assert pool.output.count(complaint) == 1
    assert "amphora/cli" not in pool.output


@on_rabbitmq
def test_a_name_that_is_no_program_is_wrong_usage(serve: Serve) -> None:
    pool = serve(program="service.py")
    assert pool.wait() == Exit.USAGE
    assert "try service:server" in pool.output


@on_rabbitmq
def test_a_url_that_is_none_is_wrong_usage(serve: Serve) -> None:
    pool = serve("--url", "http://example.org")
    assert pool.wait() == Exit.USAGE
    assert "must begin with amqp://" in pool.output
    assert "Traceback" not in pool.output


@on_rabbitmq
def test_a_refused_login_ends_it(serve: Serve, broker: Broker) -> None:
    pool = serve("-w", 2, env={"AMQP_URL": f"amqp://guest:sesame@{broker.host}:{broker.port}"})
    assert pool.wait() == Exit.NOT_ALLOWED
    assert "refuses the login of user 'guest'" in pool.output
    assert "sesame" not in pool.output


@on_rabbitmq
def test_a_url_on_the_command_line_reaches_the_workers_alone(
    serve: Serve, broker: Broker, make_client: MakeClient
) -> None:
    pool = serve("--url", broker.url, env={"AMQP_URL": "amqp://127.0.0.1:1"})
    (pid,) = wait_for_workers(pool, 1)
    assert broker.url not in Path(f"/proc/{pid}/cmdline").read_text()
    assert make_client().call.pid() == pid


@on_rabbitmq
def test_workers_wait_for_a_broker_that_is_away(serve: Serve, closed_port: int) -> None:
    pool = serve("-w", 2, env={"AMQP_URL": f"amqp://127.0.0.1:{closed_port}"})
    wait_until(lambda: pool.output.count("connecting again") == 2, pool.output)
    pool.terminate()
    assert pool.wait() == Exit.DONE


@on_rabbitmq
def test_a_worker_of_arpcs_is_served_though_it_loops_at_its_end(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "example_worker.py").write_text(
        "import os\n"
        "from amphora.arpc import mq\n"
        "class Service:\n"
        "    def c_add(self, req):\n"
        "        return {'res': req['x'] + req['y'], 'pid': os.getpid()}\n"
        "amqp = mq.AMQPOperations(useack=True, persistent=True)\n"
        "server = mq.make_json_server(amqp, os.environ['SERVICE_NAMESPACE'], Service())\n"
        "server.loop()\n"
    )
    pool = serve("-w", 2, program="example_worker", cwd=tmp_path)
    pids = wait_for_workers(pool, 2)
    client = make_client()
    answers = [client.call.add({"x": 4, "y": 8}) for _ in range(50)]
    assert {answer["res"] for answer in answers} == {12}
    assert {answer["pid"] for answer in answers} == set(pids)
    pool.terminate()
    assert pool.wait() == Exit.DONE


OTHER = """
import os
from amphora import AmqpRpcServer
server = AmqpRpcServer(os.environ["SERVICE_NAMESPACE"] + "_b", management={"kill"})
server.add_function(os.getpid)
@server.add_function
def concurrency():
    return server.concurrency
"""


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_each_worker_runs_all_the_servers_that_are_named(
    serve: Serve, make_client: MakeClient, url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "other.py").write_text(OTHER)
    (tmp_path / "service.py").write_text((PROGRAMS / "service.py").read_text())
    pool = serve("other", "-w", 2, "--concurrency", 7, cwd=tmp_path)
    pids = wait_for_workers(pool, 2)
    client = make_client()
    with AmqpRpcClient(f"{namespace}_b", url=url) as other, ManagementClient(url=url) as management:
        assert {client.call.pid() for _ in range(50)} == set(pids)
        assert {other.call.getpid() for _ in range(50)} == set(pids)
        assert other.call.concurrency() == 7
        assert {stats.value["concurrency"] for stats in management.ask(namespace, "stats")} == {7}
        # The end of one server is that of its worker, which is replaced.
        ended = next(iter(management.ask(f"{namespace}_b", "kill"))).value["pid"]
        wait_for_workers(pool, 2, ended)
    pool.terminate()
    assert pool.wait() == Exit.DONE


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_each_of_several_servers_must_be_able_to_serve(
    serve: Serve, url: str, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text((PROGRAMS / "service.py").read_text())
    (tmp_path / "other.py").write_text(
        "from amphora import AmqpRpcServer\n"
        f"server = AmqpRpcServer('x', url={url.replace('guest@', 'sesame@')!r})\n"
    )
    pool = serve("other", cwd=tmp_path)
    assert pool.wait() == Exit.NOT_ALLOWED
    assert "refuses the login" in pool.output


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_each_record_of_a_pool_can_be_a_line_of_json(
    serve: Serve, make_client: MakeClient, namespace: str
) -> None:
    pool = serve("--access-log", "--log-format", "json", "--debug")
    pool.wait_for("takes requests")
    client = make_client()
    pid = client.call.pid()
    with pytest.raises(WrongRequest):
        client.call.nothing()
    pool.wait_for("refused")
    pool.terminate()
    assert pool.wait() == Exit.DONE
    records = [json.loads(line) for line in pool.lines]
    requests = [each for each in records if each["logger"] == "amphora.access"]
    assert [(each["process"], each["function"], each["outcome"]) for each in requests] == [
        (pid, f"{namespace}.pid", "ok"),
        (pid, f"{namespace}.nothing", "refused"),
    ]
    assert {each["process"] for each in records} == {pid, pool.pid}


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_program_that_cannot_be_loaded_is_one_line_of_json(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 // 0")
    pool = serve("--log-format", "json", program="broken", cwd=tmp_path)
    assert pool.wait() == Exit.USAGE
    records = [json.loads(line) for line in pool.lines]
    assert sum("ZeroDivisionError" in each["message"] for each in records) == 1


# -- workers that die -----------------------------------------------------------------------------


@on_rabbitmq
def test_a_worker_that_is_killed_is_replaced_and_its_call_is_done(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    os.kill(pid, signal.SIGKILL)
    pool.wait_for(f"worker {pid} was killed by SIGKILL")
    release.touch()
    assert [result.get()] == wait_for_workers(pool, 1, pid)


@on_rabbitmq
def test_a_worker_that_was_stopped_from_outside_is_replaced(
    serve: Serve, make_client: MakeClient
) -> None:
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    os.kill(pid, signal.SIGTERM)
    pool.wait_for(f"worker {pid} has ended")
    assert [make_client().call.pid()] == wait_for_workers(pool, 1, pid)


@on_rabbitmq
def test_workers_that_die_at_once_are_started_with_growing_pauses(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "dying.py").write_text("import os; os._exit(7)")
    pool = serve(program="dying", cwd=tmp_path)
    pool.wait_for("the next worker starts in 0.5 s")
    pauses = [line.split()[-2] for line in pool.lines if "the next worker starts" in line]
    assert pauses == ["0.25", "0.5"]
    assert pool.output.count("has ended with status 7") == 3
    pool.terminate()
    assert pool.wait() == Exit.DONE


@on_rabbitmq
def test_workers_do_not_outlive_their_supervisor(
    serve: Serve, make_client: MakeClient, broker: Broker, namespace: str, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    pool = serve("-w", 2)
    pids = wait_for_workers(pool, 2)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    pool.kill()
    wait_until(lambda: broker.consumers(f"rpc_{namespace}_request") == 0)
    release.touch()
    assert result.get() in pids
    wait_until(lambda: not any(map(is_alive, pids)))


# -- stopping -------------------------------------------------------------------------------------


@on_rabbitmq
def test_stopping_waits_for_what_is_running(
    serve: Serve, make_client: MakeClient, broker: Broker, namespace: str, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    client = make_client()
    result = client.defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    # As ctrl-C in a terminal does, and systemd: a signal for everybody, more than once.
    os.killpg(pool.pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGTERM)
    pool.wait_for("SIGINT: stopping; workers have 30 s to finish")
    wait_until(lambda: broker.consumers(f"rpc_{namespace}_request") == 0)
    release.touch()
    assert result.get() == pid
    assert pool.wait() == Exit.DONE


@on_rabbitmq
def test_closing_the_window_stops_it(serve: Serve) -> None:
    window, terminal = os.openpty()
    # The first terminal that the leader of a session opens is the session's.
    code = (
        "import os, sys\n"
        "os.open(sys.argv[1], os.O_RDWR)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    pool = serve(before=["-c", code, os.ttyname(terminal)])
    wait_for_workers(pool, 1)
    os.close(terminal)
    os.close(window)
    pool.wait_for("SIGHUP: stopping")
    assert pool.wait() == Exit.DONE


@on_rabbitmq
def test_signals_that_come_together_are_one(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    # As `timeout` sends one to its program and to the group, and a runner to those who got ctrl-C.
    pool.signal_together(signal.SIGINT, signal.SIGTERM)
    pool.wait_for(": stopping; workers have 30 s to finish")
    release.touch()
    assert result.get() == pid
    assert pool.wait() == Exit.DONE
    assert "at once" not in pool.output


@on_rabbitmq
def test_a_second_signal_stops_at_once_and_the_requests_go_back(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    pool = serve()
    wait_for_workers(pool, 1)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    stop_at_once(pool)
    assert pool.wait() == Exit.GAVE_UP
    release.touch()
    assert wait_for_workers(serve(), 1) == [result.get()]


@on_rabbitmq
@pytest.mark.parametrize("function", ["wait_for_file", "hold_processor"])
def test_a_worker_that_is_not_done_in_time_gives_up(
    serve: Serve, make_client: MakeClient, tmp_path: Path, function: str
) -> None:
    never = tmp_path / "never"
    pool = serve("--grace", 0.2)
    (pid,) = wait_for_workers(pool, 1)
    make_client().cast(function_name=function)(str(never))
    wait_until(Path(f"{never}.entered").exists)
    pool.terminate()
    pool.wait_for(f"worker {pid} is not done after 0.2 s")
    if function == "hold_processor":
        pool.wait_for(f"worker {pid} does not react and is killed")
    assert pool.wait() == Exit.GAVE_UP
    assert not is_alive(pid)


@on_rabbitmq
def test_a_worker_that_gives_up_does_not_wait_for_what_its_program_leaves_behind(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "leaving.py").write_text(
        "import threading, time\n"
        "from tests.cli.programs.service import server\n"
        "threading.Thread(target=time.sleep, args=[600]).start()\n"
    )
    never = tmp_path / "never"
    pool = serve(program="leaving", cwd=tmp_path)
    (pid,) = wait_for_workers(pool, 1)
    make_client().cast.wait_for_file(str(never))
    wait_until(Path(f"{never}.entered").exists)
    stop_at_once(pool)
    assert pool.wait() == Exit.GAVE_UP
    assert f"worker {pid} is done, but its program goes on" in pool.output
    assert "is killed" not in pool.output


@on_rabbitmq
def test_a_worker_that_waits_for_the_confirm_of_an_answer_ends_by_itself_when_it_gives_up(
    serve: Serve, make_client: MakeClient, managed_broker: ManagedBroker, tmp_path: Path
) -> None:
    pool = serve("--grace", 0.2)
    (pid,) = wait_for_workers(pool, 1)
    path = tmp_path / "go"
    result = make_client().defer.wait_for_file(str(path))
    wait_until(Path(f"{path}.entered").exists)
    managed_broker.freeze()
    path.touch()
    pool.terminate()
    assert pool.wait() == Exit.GAVE_UP
    assert f"worker {pid} has ended" in pool.output
    assert "is killed" not in pool.output
    assert not result.ready()


# -- new programs ---------------------------------------------------------------------------------


@on_rabbitmq
def test_sighup_brings_new_code_and_a_new_worker_before_the_old_one_goes(
    serve: Serve, make_client: MakeClient, broker: Broker, namespace: str, tmp_path: Path
) -> None:
    program = tmp_path / "versions.py"
    program.write_text(TEXT.format(version="one"))
    pool = serve("-w", 2, program="versions", cwd=tmp_path)
    old = wait_for_workers(pool, 2)
    client = make_client()
    assert client.call.version() == "one"
    program.write_text(TEXT.format(version="two, later"))
    pool.signal(signal.SIGHUP)
    wait_for_workers(pool, 2, *old)
    # One that stops may have taken a last request.
    wait_until(lambda: not any(map(is_alive, old)))
    assert client.call.version() == "two, later"
    said = "\n".join(without_slowness(pool.lines))
    for pid in old:
        assert said.index("takes requests", said.index("SIGHUP")) < said.index(f"{pid} stops")
    assert "WARNING" not in said


@on_rabbitmq
def test_sighup_with_a_broken_program_leaves_the_old_workers(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    program = tmp_path / "versions.py"
    program.write_text(TEXT.format(version="one"))
    pool = serve(program="versions", cwd=tmp_path)
    old = wait_for_workers(pool, 1)
    program.write_text("def (")
    pool.signal(signal.SIGHUP)
    pool.wait_for("the new program does not start; the old workers go on")
    assert pool.output.count("SyntaxError") == 1
    assert make_client().call.version() == "one"
    assert workers(pool) == old


@on_rabbitmq
def test_a_change_of_the_source_brings_new_workers_and_errors_in_it_are_survived(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    program = tmp_path / "versions.py"
    program.write_text("def (")
    pool = serve("--reload", program="versions", cwd=tmp_path)
    pool.wait_for("waiting for a change of the program")
    program.write_text(TEXT.format(version="one"))
    pool.wait_for("versions.py changed: rolling restart")
    old = wait_for_workers(pool, 1)
    client = make_client()
    assert client.call.version() == "one"
    program.write_text("def def")
    pool.wait_for("the old workers go on")
    assert client.call.version() == "one"
    program.write_text(TEXT.format(version="two, later"))
    wait_for_workers(pool, 1, *old)
    # One that stops may have taken a last request.
    wait_until(lambda: not any(map(is_alive, old)))
    assert client.call.version() == "two, later"


# -- under load -----------------------------------------------------------------------------------


class Load:
    """Callers that never pause; an error or a wrong answer ends one.

    `answered` is how many calls were answered.
    """

    def __init__(self, client: AmqpRpcClient, callers: int) -> None:
        self.answered = 0
        self._client = client
        self._go_on = True
        self._callers = [gevent.spawn(self._call, number) for number in range(callers)]

    def _call(self, number: int) -> None:
        while self._go_on:
            assert self._client.call.add(number, 1) == number + 1
            self.answered += 1

    def wait_for_more(self) -> None:
        """Wait until so many calls were answered that every caller has had its turn."""
        goal = self.answered + 2 * len(self._callers)
        wait_until(lambda: self.answered >= goal, "more answers")

    def end(self) -> None:
        """End the load, and raise what any caller has met."""
        self._go_on = False
        gevent.joinall(self._callers, timeout=40, raise_error=True)
        assert all(caller.successful() for caller in self._callers)


@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_no_call_is_lost_when_workers_are_killed_or_restarted_under_load(
    serve: Serve, make_client: MakeClient
) -> None:
    pool = serve("-w", 3)
    first = wait_for_workers(pool, 3)
    load = Load(make_client(), callers=10)
    load.wait_for_more()
    for pid in first[:2]:
        os.kill(pid, signal.SIGKILL)
        load.wait_for_more()
    second = wait_for_workers(pool, 3, *first[:2])
    load.wait_for_more()
    pool.signal(signal.SIGHUP)
    # One after the other, and the callers leave them little of the processor.
    wait_for_workers(pool, 3, *second, timeout=100)
    load.wait_for_more()
    load.end()
    pool.terminate()
    assert pool.wait() == Exit.DONE


@pytest.mark.slow
def test_no_call_is_lost_when_one_pool_stops_under_load_and_another_goes_on(
    serve: Serve, make_client: MakeClient
) -> None:
    pools = [serve(), serve()]
    for pool in pools:
        wait_for_workers(pool, 1)
    load = Load(make_client(), callers=10)
    load.wait_for_more()
    pools[0].terminate()
    assert pools[0].wait() == Exit.DONE
    load.wait_for_more()
    load.end()
