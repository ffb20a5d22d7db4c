"""The supervisor's loop, with workers that are anything but workers."""

from __future__ import annotations

from tests.support.processes import PythonProcess


def test_no_error_ends_the_supervisor() -> None:
    code = (
        "import logging, os, signal, sys\n"
        "from amphora.cli.serving.options import PoolOptions\n"
        "from amphora.cli.serving.sources import Sources\n"
        "from amphora.cli.serving.supervisor import Supervisor\n"
        "logging.basicConfig(level='INFO')\n"
        "class Broken(Sources):\n"
        "    looks = 0\n"
        "    def changed(self):\n"
        "        self.looks += 1\n"
        "        if self.looks == 3:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        raise RuntimeError('no look is possible')\n"
        "command = [sys.executable, '-c', 'import signal, sys;'\n"
        "    ' signal.pthread_sigmask(signal.SIG_SETMASK, []); signal.pause()']\n"
        "sources = Broken('.', 'x')\n"
        "supervisor = Supervisor(command, os.environ, '.', 10, PoolOptions(), sources)\n"
        "print('status', supervisor.run())\n"
    )
    with PythonProcess("-c", code) as supervisor:
        assert supervisor.wait() == 0
        assert supervisor.output.count("an error in itself: RuntimeError('no look is") >= 2
        assert "status 0" in supervisor.output
        assert "SIGTERM: stopping" in supervisor.output
