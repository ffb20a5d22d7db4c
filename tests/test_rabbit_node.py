"""The private RabbitMQ node that other tests stand on."""

from __future__ import annotations

from pathlib import Path

import gevent
import gevent.socket
import pytest

from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.processes import PythonProcess
from tests.support.rabbitmq import (
    PROTOCOL_HEADER,
    SERVER_IN_ROOT,
    Installation,
    RabbitError,
    RabbitNode,
    RabbitNotInstalled,
    chosen_installation,
)
from tests.support.waiting import wait_until

NODE_AND_NO_END = """
import gevent
from tests.support.rabbitmq import RabbitNode

node = RabbitNode()
node.start()
print("folder", node.folder, node.home)
gevent.sleep(600)
"""


def processes_in(home: Path) -> list[str]:
    """Return the command lines of the processes whose HOME is `home`."""
    wanted = f"HOME={home}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended since, or is another user's
            continue
    return found


def test_a_node_answers_rabbitmqctl_and_leaves_other_greenlets_running(
    rabbit_node: RabbitNode,
) -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            gevent.sleep(0.001)

    ticker = gevent.spawn(tick)
    answer = rabbit_node.ctl("list_vhosts", "name")
    ticker.kill()

    assert answer.split() == ["/"]
    assert ticks > 10


def test_a_failing_rabbitmqctl_is_an_error_with_its_complaint(rabbit_node: RabbitNode) -> None:
    with pytest.raises(RabbitError, match="delete_queue nowhere failed with status"):
        rabbit_node.ctl("delete_queue", "nowhere")


def test_a_node_evaluates_what_it_is_asked(rabbit_node: RabbitNode) -> None:
    assert rabbit_node.eval("1 + 1") == "2"
    assert rabbit_node.eval("node()").strip("'") == rabbit_node.name
    with pytest.raises(RabbitError, match="oops"):
        rabbit_node.eval("exit(oops)")


def test_without_erl_call_a_node_is_asked_by_rabbitmqctl(
    rabbit_node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Installation, "finds", lambda *_: False)
    assert rabbit_node.eval("1 + 1") == "2"
    assert [part.isdecimal() for part in rabbit_node.version.split(".")] == [True] * 3
    assert rabbit_node.queues("no queue") == {}


def test_a_node_lists_queues_by_a_part_of_their_names(
    rabbit_node: RabbitNode, namespace: str
) -> None:
    name = f"a queue of {namespace}"
    with Broker(rabbit_node.url).channel() as channel:
        channel.queue_declare(name)
        channel.confirm_select()
        for _ in range(2):
            channel.publish("", name, Properties(), b"")
        wait_until(lambda: rabbit_node.queues(namespace) == {name: (2, 0)})
        channel.queue_delete(name)
    assert rabbit_node.queues(namespace) == {}


def test_a_node_tells_its_version(rabbit_node: RabbitNode) -> None:
    assert [part.isdecimal() for part in rabbit_node.version.split(".")] == [True] * 3


def test_a_frozen_node_takes_connections_but_answers_only_when_thawed(
    rabbit_node: RabbitNode,
) -> None:
    rabbit_node.freeze()
    with gevent.socket.create_connection(("127.0.0.1", rabbit_node.port), timeout=40.0) as client:
        client.sendall(PROTOCOL_HEADER)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        rabbit_node.thaw()
        client.settimeout(40.0)
        assert client.recv(1) == b"\x01"


@pytest.mark.slow
def test_what_a_node_holds_outlives_a_kill_and_a_restart_but_not_a_wipe(
    rabbit_node: RabbitNode,
) -> None:
    rabbit_node.ctl("add_vhost", "kept")
    rabbit_node.kill()
    assert not rabbit_node.running
    rabbit_node.start()
    assert "kept" in rabbit_node.ctl("list_vhosts", "name").split()

    rabbit_node.restart(wipe=True)
    assert rabbit_node.ctl("list_vhosts", "name").split() == ["/"]


@pytest.mark.slow
def test_a_killed_test_session_leaves_no_process_and_no_folder_behind() -> None:
    with PythonProcess("-c", NODE_AND_NO_END) as session:
        told = session.wait_for("folder", timeout=60.0).split()
        folder, home = Path(told[1]), Path(told[2])
        before = processes_in(home)
        assert any("beam" in command for command in before)
        assert any("epmd" in command for command in before)

        session.kill()
        with gevent.Timeout(20.0):
            while folder.exists() or processes_in(home):
                gevent.sleep(0.05)


def test_a_closed_node_leaves_no_process_and_no_folder_behind() -> None:
    node = RabbitNode()
    assert node.folder.exists()
    assert processes_in(node.home)
    node.close()
    assert not node.folder.exists()
    assert processes_in(node.home) == []
    node.close()


def test_another_rabbitmq_is_chosen_by_its_start_script(tmp_path: Path) -> None:
    script = tmp_path / "rabbitmq-server"
    script.touch()
    chosen = chosen_installation(script)
    assert chosen.command("rabbitmqctl", "status") == [str(tmp_path / "rabbitmqctl"), "status"]
    assert chosen.command("epmd") == ["epmd"]
    assert chosen.inside(tmp_path) == tmp_path


def test_a_system_in_a_folder_has_names_of_its_own_for_what_is_in_it(tmp_path: Path) -> None:
    chosen = Installation(SERVER_IN_ROOT, tmp_path)
    (tmp_path / "tmp").mkdir()
    folder = chosen.make_folder("node-")
    assert folder.is_dir()
    assert chosen.inside(folder) == Path("/tmp", folder.name)
    assert chosen.command("rabbitmqctl")[-1] == "/usr/lib/rabbitmq/bin/rabbitmqctl"


def test_a_chosen_folder_without_rabbitmq_is_told(tmp_path: Path) -> None:
    with pytest.raises(RabbitNotInstalled, match="neither a script rabbitmq-server nor a folder"):
        chosen_installation(tmp_path)
