"""Programs in processes of their own that need not import torch first.

A test that starts ``python -m robustbench_cli`` waits two to three seconds for torch.  A server
imports it once, and forks itself for every program: what such a program does, its signals, its
exit code and its output are those of a process of its own.  What a program imports, and what
torch reads of the environment as it is imported, is tested where ``subprocess`` is named.
"""

import array
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

PRELOADED = (
    "robustbench_cli.cli.evaluate",
    "robustbench_cli.cli.progress",
    "robustbench_cli.cli.train",
    "robustbench_cli.commands.evaluate",
    "robustbench_cli.commands.train",
    "scipy.special",
    "torch._dynamo",
    "torch.distributed.run",
)
"""What most programs import: the commands, and what they import as they run."""
LAUNCHED = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"
"""The module of torch's launcher that starts the processes of a run."""
WIDTH = 12
"""Bytes of each number that the server tells."""
LOOK = 0.01
"""Seconds between two looks whether a process has ended."""


class WarmProcess:
    """A program that runs, with the methods of ``subprocess.Popen``, forked by the server.

    ``PIPE`` stands for a file, which ``communicate`` reads when the program has ended.
    """

    place = ""
    """Where the server listens."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdout: IO[str] | int | None = None,
        stderr: IO[str] | int | None = None,
        start_new_session: bool = False,
        **_same: Any,
    ) -> None:
        self.args = [str(word) for word in args]
        assert self.args[0] == sys.executable, self.args
        self.returncode: int | None = None
        told = {
            "words": [word for word in self.args[1:] if word != "-u"],
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "group": start_new_session,
        }
        self._files = [_file(stdout), _file(stderr)]
        with Path(os.devnull).open("w") as nothing:
            where = [
                nothing if stream == subprocess.DEVNULL else file or stream or own
                for stream, file, own in zip((stdout, stderr), self._files, (1, 2), strict=True)
            ]
            numbers = [each if isinstance(each, int) else each.fileno() for each in where]
            self._server = socket.socket(socket.AF_UNIX)
            self._server.connect(self.place)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))
            content = json.dumps(told).encode()
            self._server.sendmsg([_number(len(content))], [rights])
            self._server.sendall(content)
            self.pid = int(self._server.recv(WIDTH))

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        if self.returncode is None:
            self._server.setblocking(False)
            try:
                self.returncode = int(self._server.recv(WIDTH))
            except BlockingIOError:
                return None
            self._server.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the program has ended."""
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(LOOK)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what the program said on both of its streams, once it has ended."""
        self.wait(timeout)
        out, err = (_read(file) for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal to the program, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the program to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the program."""
        self.send_signal(signal.SIGKILL)


def warm_run(args: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and return its exit code and what it said."""
    process = WarmProcess(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    said = process.communicate()
    return subprocess.CompletedProcess(process.args, process.wait(), *said)


def _file(stream: IO[str] | int | None) -> IO[str] | None:
    return tempfile.TemporaryFile("w+") if stream == subprocess.PIPE else None


def _read(file: IO[str] | None) -> str:
    if file is None:
        return ""
    with file:
        file.seek(0)
        return file.read()


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Run the server for the block."""
    place = folder / "server"
    server = subprocess.Popen(
        [sys.executable, __file__, str(place)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    while not place.exists():
        assert server.poll() is None
        time.sleep(LOOK)
    WarmProcess.place = str(place)
    try:
        yield
    finally:
        server.communicate()  # it ends with its input


def _serve(place: str) -> None:
    for module in PRELOADED:
        __import__(module)
    WarmProcess.place = place
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks what became of the keepers
    if not os.fork():
        _in_child(_end_with_input)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{place}.new")
        door.listen()
        Path(f"{place}.new").rename(place)
        while True:
            client = door.accept()[0]
            if not os.fork():
                door.close()
                _in_child(lambda: _keep(client))  # noqa: B023 - it is called at once
            client.close()


def _end_with_input() -> None:
    """End the server when the test process has closed its input, or has died."""
    sys.stdin.read()
    os.kill(os.getppid(), signal.SIGKILL)


def _keep(client: socket.socket) -> None:
    """Fork the program; tell the client its process and, in the end, its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size = array.array("i").itemsize
    length, [(_, _, rights)], *_ = client.recvmsg(WIDTH, socket.CMSG_SPACE(2 * size))
    content = b""
    while len(content) < int(length):
        content += client.recv(1 << 16)
    told = json.loads(content)
    child = os.fork()
    if not child:
        client.close()
        _in_child(lambda: _become(told, *array.array("i", rights)))
    if told["group"]:
        os.setpgid(child, child)
    client.sendall(_number(child))
    client.sendall(_number(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os._exit(0)


def _in_child(then: Callable[[], None]) -> NoReturn:
    try:
        then()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _become(told: dict[str, Any], out: int, err: int) -> None:
    """Be the program that a client asked for, and end as it does."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(told["env"])
    os.chdir(told["cwd"])
    is_module = told["words"][0] == "-m"
    name, *words = told["words"][is_module:]
    sys.argv = [name, *words]
    if name == "torch.distributed.run":
        sys.modules[LAUNCHED].Popen = WarmProcess  # type: ignore[attr-defined]
    start: Callable[..., object] = runpy.run_module if is_module else runpy.run_path
    code: object = 0
    try:
        start(name, run_name="__main__", **({"alter_sys": True} if is_module else {}))
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _number(value: int) -> bytes:
    return f"{value:{WIDTH}}".encode()


if __name__ == "__main__":
    _serve(sys.argv[1])
