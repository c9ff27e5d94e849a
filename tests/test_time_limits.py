"""A run of the suite always ends, and says which test was at fault."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"

CRASH = "import os, signal\ndef test_dies(): os.kill(os.getpid(), signal.SIGSEGV)\n"
FINE = "import time\ndef test_is_fine(): time.sleep(0.01)\n" + "".join(
    f"def test_is_fine_{i}(): time.sleep(0.01)\n" for i in range(30)
)
# Locking a mutex twice waits for ever, in native code that signals do not interrupt; PyDLL keeps
# the interpreter's lock, so that no Python thread can run meanwhile.
HANG = """
import ctypes
def test_hangs():
    lock, mutex = ctypes.PyDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(128)
    lock(mutex)
    lock(mutex)
"""


@pytest.fixture
def run(tmp_path):
    """Run pytest on some files, in two workers; return its exit code, output and seconds."""

    def run(files, *options, limits="timeout = 300"):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{limits}\n")
        begun = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "time_limits", *options, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(PLUGINS), "PYTEST_ADDOPTS": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr, time.monotonic() - begun

    return run


WORKERS = ("-n", "2", "--dist", "loadfile")


def test_a_worker_that_dies_ends_the_run_and_its_test_is_named(run):
    files = {"test_a.py": FINE, "test_b.py": CRASH + FINE, "test_c.py": FINE}
    code, output, seconds = run(files, *WORKERS)
    assert code == 1
    assert "a worker process died while running test_b.py::test_dies" in output
    assert "replacing crashed worker" not in output
    assert seconds < 60


def test_native_code_that_hangs_is_ended_by_the_limit_of_its_test(run):
    # The interruption in Python never comes; the process is ended GRACE seconds later.
    hurry = "import time_limits\ntime_limits.GRACE = 1.0\n"
    code, output, seconds = run(
        {"conftest.py": hurry, "test_a.py": HANG, "test_b.py": FINE},
        *WORKERS,
        limits="timeout = 1",
    )
    assert code == 1
    assert "a worker process died while running test_a.py::test_hangs" in output
    assert seconds < 60


@pytest.mark.parametrize("options", [WORKERS, ()])
def test_the_whole_run_has_a_limit(run, options):
    slow = "import time\ndef test_sleeps(): time.sleep(120)\n"
    code, output, seconds = run(
        {"test_a.py": slow, "test_b.py": FINE}, *options, limits="suite_timeout = 5"
    )
    assert code == 1
    assert "the suite's time limit of 5 s is over; running: test_a.py::test_sleeps" in output
    assert seconds < 60


def test_a_run_without_faults_passes(run):
    code, output, _ = run({"test_a.py": FINE}, *WORKERS, limits="timeout = 9\nsuite_timeout = 90")
    assert code == 0
    assert "31 passed" in output
