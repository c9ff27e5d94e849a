"""Processes that share a run: they end together, and for the same reason."""

import inspect
import os
import signal
import sys
import time
import weakref

import pytest
import torch
from warm_processes import warm_run

from robustbench_cli.core.errors import UserError
from robustbench_cli.distributed import env
from robustbench_cli.distributed.group import ALONE, Shard, join_processes


def joined(out, body):
    """Run ``body`` as one of several processes; a file named by the rank holds what it raised."""
    rank = None
    try:
        with join_processes("cpu") as shard:
            rank = shard.rank
            body(shard, out)
    except BaseException as error:
        (out / str(rank)).write_text(f"{type(error).__name__} {error}")
        return 1
    return 0


def raised(out):
    """What the two processes raised, by rank."""
    return {rank: path.read_text() for rank in range(2) if (path := out / str(rank)).is_file()}


@pytest.fixture
def shared(tmp_path, two_processes):
    """A runner of a body in two processes: their exit codes, and what they raised."""

    def run(body):
        codes = two_processes(lambda: joined(tmp_path, body))
        return codes, raised(tmp_path)

    return run


def test_sums_and_copies_keep_every_tensor_s_shape_type_and_layout(shared):
    def body(shard, out):
        x = torch.full((2, 3, 4, 4), shard.rank + 1.0).contiguous(memory_format=torch.channels_last)
        y = torch.full((5,), shard.rank + 1.0)
        shard.all_reduce_sum_([x, y])
        assert (x == 3).all()
        assert (y == 3).all()
        assert x.is_contiguous(memory_format=torch.channels_last)
        z = [torch.tensor(7 * shard.rank), torch.full((2,), shard.rank + 0.5)]
        z.append(torch.ones(2) * shard.rank)
        shard.broadcast_(z)
        assert [t.tolist() for t in z] == [0, [0.5, 0.5], [0, 0]]
        with shard.main_process_first():
            if shard.is_main:
                time.sleep(0.2)
                (out / "first").touch()
            assert (out / "first").exists()

    assert shared(body) == ([0, 0], {})


def test_who_waits_for_the_one_that_failed_fails_for_its_reason(shared):
    def body(shard, out):
        if not shard.is_main:
            raise UserError("no room on the disk")
        shard.all_gather(0)

    assert shared(body) == ([1, 1], dict.fromkeys(range(2), "UserError no room on the disk"))


@pytest.mark.usefixtures("warm_processes")
def test_who_waits_for_nobody_is_ended_by_the_launcher_for_the_same_reason(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from robustbench_cli.core.errors import UserError\n"
        "from robustbench_cli.distributed import env\n"
        "from robustbench_cli.distributed.group import join_processes\n"
        f"{inspect.getsource(joined)}\n"
        "def interrupt(number, frame):\n"
        "    raise KeyboardInterrupt\n"
        "def body(shard, out):\n"
        "    if not shard.is_main:\n"
        "        raise UserError('no room on the disk')\n"
        "    time.sleep(60)\n"
        "signal.signal(signal.SIGTERM, interrupt)\n"
        "torch.set_num_threads(1)\n"
        "env.end_process(joined(Path(sys.argv[1]), body))\n"
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = warm_run([sys.executable, *launcher, str(script), str(tmp_path)])
    assert done.returncode != 0, done.stderr
    assert raised(tmp_path) == dict.fromkeys(range(2), "UserError no room on the disk")


def test_a_process_that_was_killed_is_missed(shared):
    def body(shard, out):
        if not shard.is_main:
            os.kill(os.getpid(), signal.SIGKILL)
        shard.all_gather(0)

    lost = {0: "RunError another process of this run is gone"}
    assert shared(body) == ([1, -signal.SIGKILL], lost)


def test_an_error_of_another_kind_is_named(shared):
    def body(shard, out):
        if not shard.is_main:
            raise MemoryError("of 3 GB")
        shard.all_gather(0)

    named = {0: "RunError MemoryError: of 3 GB", 1: "MemoryError of 3 GB"}
    assert shared(body) == ([1, 1], named)


def test_alone_nothing_is_waited_for():
    x = torch.ones(3)
    ALONE.all_reduce_sum_([x])
    ALONE.broadcast_([x])
    assert x.tolist() == [1, 1, 1]
    assert ALONE.all_gather("me") == ["me"]
    assert ALONE.broadcast_from_main(lambda: 3) == 3


def test_rows_are_dealt_out_in_turn():
    rows = torch.arange(7)
    assert [rows[Shard(rank, 3).rows].tolist() for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert Shard(1, 3).mine(7).nonzero()[0].tolist() == [1, 4]


def test_the_process_group_is_not_deallocated_where_it_could_wait_for_its_own_threads(
    tmp_path, two_processes
):
    kept = []

    def body(shard, out):
        kept.append(weakref.ref(torch.distributed.group.WORLD))
        shard.all_gather(0)

    def command():
        code = joined(tmp_path, body)
        assert not torch.distributed.is_initialized()
        assert kept[0]() is not None
        env.end_process(code)

    assert two_processes(command) == [0, 0], raised(tmp_path)
