"""A RabbitMQ node of the test session's own.

The node shares nothing with any other on the machine: it has its own name, ports, epmd, cookie,
settings and data, all in one temporary folder, and listens on the loopback alone.

RabbitMQ's start script becomes the Erlang machine (with RABBITMQ_ALLOW_INPUT it runs nothing else
beside it), and epmd runs in the foreground, so both are children of the test process, each the
leader of a process group. A third child, the watchdog, holds the other end of a pipe: when the pipe
closes, be it by `close()` or because the test process was killed, it kills what is left of the two
groups and removes the folder. So there is one way out, and every ending takes it.

Everything that waits does so as gevent does, and leaves the other greenlets running.

AMPHORA_TEST_RABBITMQ names another RabbitMQ than the machine's own: a start script, or a folder
with a whole system in it, such as debootstrap makes. The node then runs inside of that folder,
which only root can have done. AMPHORA_TEST_RABBITMQ_CONFIG names a file with more lines for
rabbitmq.conf.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import gevent
import gevent.socket
from gevent import subprocess

from tests.support.ports import PORTS, claim_ports
from tests.support.waiting import wait_until

# Where packages put the scripts themselves. Debian's /usr/sbin has only a wrapper, which
# switches to the system's user and system's settings.
SERVER_PATHS = (
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/opt/homebrew/sbin/rabbitmq-server"),
    Path("/usr/local/sbin/rabbitmq-server"),
)
# The same inside of a folder that AMPHORA_TEST_RABBITMQ names.
SERVER_IN_ROOT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CHOSEN = os.environ.get("AMPHORA_TEST_RABBITMQ") or None
MORE_CONFIG = os.environ.get("AMPHORA_TEST_RABBITMQ_CONFIG") or None
# Whether a queue that names no type is a quorum queue on the nodes that the tests start.
QUORUM_BY_DEFAULT = MORE_CONFIG is not None and "default_queue_type = quorum" in Path(
    MORE_CONFIG
).read_text(encoding="utf-8")
NOT_INSTALLED = (
    "RabbitMQ is not installed, so there is no broker to test with: install rabbitmq-server "
    "(`make test` does so as root on Debian and Ubuntu), or set AMPHORA_TEST_URL to the URL of a "
    "broker that the tests may use."
)

ON_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = 1

# What RabbitMQ calls its own users, and who it is told to have asked for something.
USERS = "rabbit_auth_backend_internal"
TESTS = '<<"the tests">>'
# The queues whose names have a part, as one string: names, messages and consumers.
QUEUES = """
lists:flatten([
    io_lib:format("~ts ~p ~p|", [Name | [case is_integer(N) of true -> N; false -> 0 end
        || N <- [proplists:get_value(K, Info) || K <- [messages, consumers]]]])
    || Info <- rabbit_amqqueue:info_all(<<"/">>, [name, messages, consumers]),
    {resource, _, queue, Name} <- [proplists:get_value(name, Info)],
    string:find(Name, %s) =/= nomatch
])
"""

CONFIG = """\
listeners.tcp.local = 127.0.0.1:{port}
log.console = false
log.file.level = info
disk_free_limit.absolute = 1MB
{more}
"""

WATCHDOG = """\
trap '' HUP INT TERM
read -r _
for file in "$1"/*.pid; do
    [ -e "$file" ] && kill -s KILL -- "-$(cat "$file")" 2>/dev/null
done
tries=50
until rm -rf "$1" 2>/dev/null || [ "$((tries -= 1))" -eq 0 ]; do sleep 0.1; done
"""


class RabbitError(Exception):
    """The node, or a command for it, did not do what it was asked."""


class RabbitNotInstalled(RabbitError):
    """There is no RabbitMQ on this machine."""


@dataclass(frozen=True)
class Installation:
    """A RabbitMQ of this machine.

    Attributes:
        server: its start script, as its processes see it.
        root: the folder that its processes take for the whole file system; None for none.
    """

    server: Path
    root: Path | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the command that runs a program; a script of RabbitMQ is named without a path."""
        script = self.server.with_name(program)
        if program.startswith("rabbitmq"):
            program = str(script)
        if self.root is None:
            return [program, *arguments]
        # The mount is the process's own, and ends with it.
        return ["unshare", "--mount-proc", f"--root={self.root}", "--wd=/", program, *arguments]

    def make_folder(self, prefix: str) -> Path:
        """Make a folder of a new name where the processes can see it."""
        parent = None if self.root is None else self.root / "tmp"
        return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))

    def finds(self, program: str) -> bool:
        """Return whether there is a program that is no script of RabbitMQ."""
        if self.root is None:
            return shutil.which(program) is not None
        return (self.root / "usr/bin" / program).exists()

    def inside(self, path: Path) -> Path:
        """Return what the processes call a path."""
        return path if self.root is None else "/" / path.relative_to(self.root)


def find_installation() -> Installation:
    """Return the RabbitMQ to test with.

    Raises RabbitNotInstalled.
    """
    if CHOSEN is not None:
        return chosen_installation(Path(CHOSEN).resolve())
    for path in SERVER_PATHS:
        if path.exists():
            return Installation(path)
    found = shutil.which("rabbitmq-server")
    if found is None:
        raise RabbitNotInstalled(NOT_INSTALLED)
    return Installation(Path(found))


def chosen_installation(path: Path) -> Installation:
    """Return the RabbitMQ that AMPHORA_TEST_RABBITMQ names.

    Raises RabbitNotInstalled.
    """
    if path.is_file():
        return Installation(path)
    # What stands there is a link, and leads out of the folder when it is followed from outside.
    if not (path / SERVER_IN_ROOT.relative_to("/")).is_symlink():
        raise RabbitNotInstalled(
            f"AMPHORA_TEST_RABBITMQ names {path}, which is neither a script rabbitmq-server nor a "
            f"folder with a system in which there is {SERVER_IN_ROOT}."
        )
    if os.geteuid() != 0:
        raise RabbitNotInstalled(
            f"AMPHORA_TEST_RABBITMQ names the folder {path}, and only root can run a system that "
            "is in a folder: name a script rabbitmq-server instead."
        )
    return Installation(SERVER_IN_ROOT, path)


class RabbitNode:
    """One private node, used as a context manager or by `start()` and `close()`.

    Args:
        config: more lines for its rabbitmq.conf.
        name: what it is called; made up if not given.
        erlang: more options for the Erlang machine.
        cookie: what nodes that are one cluster have in common; made up if not given.
        epmd_port: where the nodes of its cluster find one another; an epmd of its own if not given.

    Attributes:
        port: where it takes connections.
        distribution_port: where it takes those of other nodes.
    """

    def __init__(
        self,
        config: str = "",
        *,
        name: str | None = None,
        erlang: str = "",
        cookie: str | None = None,
        epmd_port: int | None = None,
    ) -> None:
        self._installation = find_installation()
        claims = claim_ports(3)
        self.port, self.distribution_port, own_epmd_port = claims
        self.name = name or make_name()
        self.folder = self._installation.make_folder("amphora-rabbit-")
        self.cookie = cookie or secrets.token_hex(16)
        self.epmd_port = epmd_port or own_epmd_port
        self._write("rabbitmq.conf", CONFIG.format(port=self.port, more=config + more_config()))
        self._write("enabled_plugins", "[].\n")
        self._write(".erlang.cookie", self.cookie).chmod(0o400)
        self._environment = self._make_environment(erlang)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "watchdog", str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            # It holds the ports as well: the node is not there yet, and at times it is stopped.
            pass_fds=[claim.fileno() for claim in claims.values()],
        )
        for claim in claims.values():
            claim.close()
        self._epmd: subprocess.Popen | None = None
        if epmd_port is None:
            self._epmd = self._spawn("epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1")
        self._beam: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "stopped"
        return f"<RabbitNode {self.name} port {self.port}, {state}>"

    @property
    def url(self) -> str:
        """The URL of the node's default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    @property
    def running(self) -> bool:
        """Whether the node's process exists, be it ready, starting or frozen."""
        return self._beam is not None and self._beam.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the Erlang machine."""
        if self._beam is None or not self.running:
            raise RabbitError(f"{self.name} is not running")
        return self._beam.pid

    @property
    def version(self) -> str:
        """RabbitMQ's version, such as "3.10.8"."""
        return self.eval("rabbit_misc:version()").strip('"')

    @property
    def log(self) -> str:
        """Everything that the node has written to its log."""
        paths = (self.folder / "rabbit.log", self.folder / "rabbitmq-server.out")
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    @property
    def home(self) -> Path:
        """What the node calls its folder."""
        return self._installation.inside(self.folder)

    def start(self, timeout: float = 60.0) -> None:
        """Start the node, and wait until it takes connections."""
        self.launch()
        self.wait_ready(timeout)

    def launch(self) -> None:
        """Start the node, and do not wait for it."""
        if self.running:
            raise RabbitError(f"{self.name} is already running")
        # -noinput, because a machine that may read its input would start a shell on it.
        self._beam = self._spawn("rabbitmq-server", "-noinput")

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the node answers a client's first bytes, at most `timeout` seconds.

        Raises RabbitError with the end of the log when it ends or does not answer.
        """
        try:
            with gevent.Timeout(timeout) as limit:
                while not self._answers():
                    if not self.running:
                        raise RabbitError(
                            f"{self.name} ended while it started:\n{self._log_tail()}"
                        )
                    gevent.sleep(0.02)
        except gevent.Timeout as raised:
            if raised is not limit:
                raise
            raise RabbitError(
                f"{self.name} took no connection within {timeout:g} s:\n{self._log_tail()}"
            ) from None

    def stop(self, timeout: float = 30.0) -> None:
        """Shut the node down in good order; its data stay."""
        self.thaw()
        self._signal(signal.SIGTERM)
        try:
            self._wait_ended(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RabbitError(f"{self.name} did not stop within {timeout:g} s") from None

    def kill(self) -> None:
        """Kill the node (SIGKILL) as if the power had gone; its data stay."""
        self._signal(signal.SIGKILL)
        self._wait_ended(10.0)

    def freeze(self) -> None:
        """Halt the node (SIGSTOP): the kernel still takes connections and bytes for it."""
        self._signal(signal.SIGSTOP)
        # A thread that runs goes on for a moment.
        wait_until(self._is_halted, "the node is halted")

    def thaw(self) -> None:
        """Let a frozen node go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self, wipe: bool = False) -> None:
        """Stop and start the node on the same ports; with `wipe` it comes back empty."""
        self.stop()
        if wipe:
            self.wipe()
        self.start()

    def wipe(self) -> None:
        """Remove all that a node which is not running has kept."""
        shutil.rmtree(self.folder / "data")

    def recover(self) -> None:
        """Make the node ready, whatever was done to it: stopped, killed or frozen."""
        if self.running:
            self.thaw()
            self.wait_ready()
        else:
            self.start()

    def ctl(self, *arguments: str, timeout: float = 30.0) -> str:
        """Run `rabbitmqctl --silent` with `arguments` on the node, and return what it prints.

        Raises RabbitError with its complaint when it fails or takes longer than `timeout` seconds.
        """
        command = self._installation.command("rabbitmqctl", "--silent", *arguments)
        return self._run(command, f"rabbitmqctl {' '.join(arguments)}", timeout)

    def eval(self, expression: str, timeout: float = 30.0) -> str:
        """Evaluate an expression in Erlang on the node, and return its value as Erlang prints it.

        `rabbitmqctl` starts an Erlang machine for each command, which takes a second and a third of
        a second of the processor.  This takes some milliseconds, where Erlang has its `erl_call`.

        Raises RabbitError when it fails or takes longer than `timeout` seconds.
        """
        if not self._installation.finds("erl_call"):
            return self.ctl("eval", f"{expression}.", timeout=timeout).strip()
        command = ["erl_call", "-sname", self.name, "-c", self.cookie, "-e"]
        shown = f"erl_call {expression}"
        told = self._run(
            self._installation.command(*command), shown, timeout, given=f"{expression}.\n"
        )
        if not told.startswith("{ok, "):
            raise RabbitError(f"{shown} failed:\n{told}")
        return told.removeprefix("{ok, ").removesuffix("}")

    def close_all_connections(self, reason: str = "by the test") -> None:
        """Close all clients' connections, as an operator can."""
        self.eval(
            "rabbit_networking:close_connections("
            f"rabbit_networking:connections(), {as_string(reason)})"
        )

    def add_user(self, name: str, password: str) -> None:
        """Let somebody log in, who may do nothing yet."""
        self.eval(f"{USERS}:add_user({as_binary(name)}, {as_binary(password)}, {TESTS})")

    def delete_user(self, name: str) -> None:
        """Let somebody not log in any more."""
        self.eval(f"{USERS}:delete_user({as_binary(name)}, {TESTS})")

    def permit(self, user: str, configure: str, write: str, read: str, *, vhost: str = "/") -> None:
        """Set what a user may do: patterns of the names of queues and exchanges."""
        patterns = ", ".join(map(as_binary, (configure, write, read)))
        named = f"{as_binary(user)}, {as_binary(vhost)}"
        self.eval(f"{USERS}:set_permissions({named}, {patterns}, {TESTS})")

    @contextmanager
    def messages_up_to(self, size: int) -> Iterator[None]:
        """Have it take no larger messages on channels that are opened meanwhile."""
        before = self.eval("element(2, application:get_env(rabbit, max_message_size))")
        self._limit_messages(str(size))
        try:
            yield
        finally:
            self._limit_messages(before)

    def _limit_messages(self, size: str) -> None:
        # RabbitMQ 3 reads the setting for each channel, RabbitMQ 4 what it was when it started.
        self.eval(f"application:set_env(rabbit, max_message_size, {size})")
        self.eval(f"persistent_term:put(max_message_size, {size})")

    def queues(self, part: str) -> dict[str, tuple[int, int]]:
        """Return the messages and the consumers of each queue whose name has a part.

        Of a queue whose node is down nothing is known: it has none.
        """
        listed = self.eval(QUEUES % as_binary(part))
        rows = [row.rsplit(" ", 2) for row in listed.strip('"[]').split("|") if row]
        return {name: (int(messages), int(consumers)) for name, messages, consumers in rows}

    def _run(self, command: list[str], shown: str, timeout: float, given: str | None = None) -> str:
        """Run a command, and return what it prints."""
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                input=given or "",
                capture_output=True,
                text=True,
                timeout=timeout,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise RabbitError(f"{shown} took longer than {timeout:g} s") from None
        if done.returncode != 0:
            complaint = (done.stderr or done.stdout).strip()
            raise RabbitError(f"{shown} failed with status {done.returncode}:\n{complaint}")
        return done.stdout

    def close(self) -> None:
        """End the node and its epmd, and remove its folder. Closing twice does nothing."""
        if self.running:
            self.kill()
        if self._epmd is not None and self._epmd.poll() is None:
            self._epmd.kill()
            self._epmd.wait()
        if self._watchdog.stdin is not None and not self._watchdog.stdin.closed:
            self._watchdog.stdin.close()
            self._watchdog.wait()

    def _make_environment(self, erlang: str) -> dict[str, str]:
        # RABBITMQ_* of the system's node, if the shell has any, would lead into its settings.
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ_")
        }
        folder = self.home
        return {
            **inherited,
            "HOME": str(folder),
            # Of another system in a folder, this one's language may be unknown.
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(PORTS.start),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(PORTS.stop),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "no-conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "no-advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": str(folder / "rabbit.log"),
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{ON_LOOPBACK} {erlang}",
        }

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen:
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                self._installation.command(name, *arguments),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._write(f"{name}.pid", str(process.pid))
        return process

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def _is_halted(self) -> bool:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def _wait_ended(self, timeout: float) -> None:
        assert self._beam is not None
        self._beam.wait(timeout)
        # Its number may be another's by now: the watchdog must not find it.
        (self.folder / "rabbitmq-server.pid").unlink()

    def _answers(self) -> bool:
        try:
            with gevent.socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as stream:
                stream.sendall(PROTOCOL_HEADER)
                return stream.recv(1) == bytes([METHOD_FRAME])
        except OSError:
            return False

    def _log_tail(self) -> str:
        return "\n".join(self.log.splitlines()[-30:])


def make_name() -> str:
    """Return a name for a node that no other has."""
    return f"amphora-{secrets.token_hex(4)}@localhost"


def as_string(text: str) -> str:
    """Return a text as Erlang writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def as_binary(text: str) -> str:
    """Return a text as Erlang writes its bytes."""
    return f"<<{as_string(text)}/utf8>>"


def more_config() -> str:
    """Return the lines of the file that AMPHORA_TEST_RABBITMQ_CONFIG names."""
    return "" if MORE_CONFIG is None else "\n" + Path(MORE_CONFIG).read_text()


class ExternalBroker:
    """The broker that AMPHORA_TEST_URL names. It is only talked to, never managed."""

    def __init__(self, url: str) -> None:
        self.url = url
