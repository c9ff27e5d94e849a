"""Processes that share a run: they end together, and for the same reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustbench_cli.distributed.group import ALONE, Shard

ROOT = Path(__file__).parents[2]

BODY = """
import signal, sys, time
from pathlib import Path
import torch
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.distributed import env
from robustbench_cli.distributed.group import join_processes

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)
torch.set_num_threads(1)
out = Path(sys.argv[1])
rank = None
try:
    with join_processes("cpu") as shard:
        rank = shard.rank
{body}
except BaseException as error:
    (out / str(rank)).write_text(f"{{type(error).__name__}} {{error}}")
    env.end_process(1)
{after}
env.end_process(0)
"""


def launched(tmp_path, body, after=""):
    """What each of two processes raised, by rank."""
    script = tmp_path / "script.py"
    script.write_text(
        BODY.format(body="\n".join(f"        {line}" for line in body.splitlines()), after=after)
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = {rank: (tmp_path / str(rank)) for rank in range(2)}
    return done, {rank: path.read_text() for rank, path in found.items() if path.is_file()}


def test_sums_and_copies_keep_every_tensor_s_shape_type_and_layout(tmp_path):
    body = """\
x = torch.full((2, 3, 4, 4), shard.rank + 1.0).contiguous(memory_format=torch.channels_last)
y = torch.full((5,), shard.rank + 1.0)
shard.all_reduce_sum_([x, y])
assert (x == 3).all() and (y == 3).all(), (x, y)
assert x.is_contiguous(memory_format=torch.channels_last)
z = [torch.tensor(7 * shard.rank), torch.full((2,), shard.rank + 0.5), torch.ones(2) * shard.rank]
shard.broadcast_(z)
assert [t.tolist() for t in z] == [0, [0.5, 0.5], [0, 0]], z
with shard.main_process_first():
    if shard.is_main:
        time.sleep(0.2)
        (out / "first").touch()
    assert (out / "first").exists()
"""
    done, raised = launched(tmp_path, body)
    assert done.returncode == 0, (raised, done.stderr)


@pytest.mark.parametrize(
    "waiting", ["shard.all_gather(0)", "time.sleep(60)"], ids=["for the other", "for nobody"]
)
def test_everyone_fails_for_the_reason_of_the_one_that_failed(tmp_path, waiting):
    body = f"""\
if shard.is_main:
    {waiting}
else:
    raise UserError("no room on the disk")
"""
    done, raised = launched(tmp_path, body)
    assert done.returncode != 0
    assert raised == dict.fromkeys(range(2), "UserError no room on the disk")


def test_a_process_that_was_killed_is_missed(tmp_path):
    body = """\
if not shard.is_main:
    import os
    os.kill(os.getpid(), signal.SIGKILL)
shard.all_gather(0)
"""
    _, raised = launched(tmp_path, body)
    assert raised == {0: "RunError another process of this run is gone"}


def test_an_error_of_another_kind_is_named(tmp_path):
    body = """\
if not shard.is_main:
    raise MemoryError("of 3 GB")
shard.all_gather(0)
"""
    _, raised = launched(tmp_path, body)
    assert raised == {0: "RunError MemoryError: of 3 GB", 1: "MemoryError of 3 GB"}


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


def test_the_process_group_is_not_deallocated_where_it_could_wait_for_its_own_threads(tmp_path):
    body = "import weakref\nkept = weakref.ref(torch.distributed.group.WORLD)\nshard.all_gather(0)"
    after = "\nassert not torch.distributed.is_initialized()\nassert kept() is not None\n"
    done, raised = launched(tmp_path, body, after=after)
    assert done.returncode == 0, (raised, done.stderr)
