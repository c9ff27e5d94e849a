"""Time limits that hold against native code, and an end to the run when a worker dies.

pytest-timeout interrupts a test in Python; a test that hangs inside native code cannot be
interrupted, and a worker that crashed is replaced by pytest-xdist, which can leave all processes
waiting for each other.  So, with the settings below in pyproject.toml:

- ``timeout``: seconds per test (pytest-timeout).  A process still in the same test 30 seconds later
  prints where it is and ends.
- ``suite_timeout``: seconds for the whole run, after which it names the tests still running and
  ends.
- A worker that died ends the run at once; the message names the test that it was in.
"""

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator

import pytest

GRACE = 30.0
"""Seconds that a test gets to be interrupted in Python before its process is ended."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("suite_timeout", "Seconds after which the whole run is ended.", default="0")


STDERR = pytest.StashKey[int]()
"""The process's own stderr: file descriptor 2 belongs to pytest while it captures output."""


def pytest_configure(config: pytest.Config) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        config.stash[STDERR] = os.dup(2)
    if hasattr(config, "workerinput"):
        return
    if hasattr(config.option, "maxworkerrestart"):
        config.option.maxworkerrestart = "0"
        config.pluginmanager.register(EndWhenAWorkerDies())
    limit = float(config.getini("suite_timeout"))
    if limit:
        config.pluginmanager.register(SuiteLimit(config, limit))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End this process if the test outlives its limit, from a thread that needs no interpreter."""
    marker = item.get_closest_marker("timeout")
    limit = float(marker.args[0] if marker and marker.args else item.config.getini("timeout") or 0)
    if limit:
        faulthandler.dump_traceback_later(limit + GRACE, exit=True, file=item.config.stash[STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


class EndWhenAWorkerDies:
    """Ends the run on the first crash instead of going on with a new worker."""

    def pytest_handlecrashitem(self, crashitem: str) -> None:
        pytest.exit(f"a worker process died while running {crashitem}", returncode=1)


class SuiteLimit:
    """Ends the run after a number of seconds, whatever hangs."""

    def __init__(self, config: pytest.Config, seconds: float) -> None:
        self._config, self._seconds = config, seconds
        self._running: dict[str, None] = {}
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self._running.pop(report.nodeid, None)

    def pytest_unconfigure(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        names = ", ".join(self._running) or "no test"
        message = f"\nthe suite's time limit of {self._seconds:g} s is over; running: {names}\n"
        os.write(self._config.stash[STDERR], message.encode())
        for gateway in self._gateways():
            os.kill(gateway, signal.SIGKILL)
        os._exit(1)

    def _gateways(self) -> list[int]:
        """The process ids of pytest-xdist's workers."""
        session = self._config.pluginmanager.getplugin("dsession")
        nodes = [] if session is None else session.nodemanager.group
        return [node._io.popen.pid for node in nodes]
