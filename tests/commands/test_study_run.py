"""Jobs of a study: never twice, whoever runs them; killed and resumed; what they tell meanwhile."""

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from rich.console import Console
from rich.progress import Progress

from robustbench_cli.cli import job_state_file, study_display
from robustbench_cli.cli.job_state_file import JobStateFile
from robustbench_cli.cli.study_display import left_in_words
from robustbench_cli.commands import job_runner, study_run
from robustbench_cli.commands.job_state import JobState, read_job_state
from robustbench_cli.commands.launchers import LAUNCHERS, Launcher
from robustbench_cli.commands.study_jobs import Job, JobCommand
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.training.trainer import Watch


def a_job(results, words, *, id="a-s0", after=()):
    command = JobCommand(folder=id, words=tuple(words))
    return Job(id=id, results=results, commands=(command,), after=frozenset(after))


def test_a_job_waits_until_nobody_else_runs_it(tmp_path):
    job = a_job(tmp_path / "digits", ["--version"])
    assert not job_runner.is_locked(job)
    job.lock.parent.mkdir(parents=True)
    with job.lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert job_runner.is_locked(job)
        said = []
        thread = threading.Thread(target=lambda: said.append(job_runner.run_job(job)))
        thread.start()
        time.sleep(0.5)
        assert not said
    thread.join()
    assert said == [""]
    assert not job_runner.is_locked(job)


def test_the_command_of_a_job_keeps_the_lock_when_the_study_is_killed(tmp_path):
    """An orphaned training goes on: a new study must wait for it."""
    job = a_job(tmp_path / "digits", ["--version"])
    code = (
        "import sys, time; from pathlib import Path\n"
        "from robustbench_cli.commands import job_runner\n"
        "from robustbench_cli.commands.study_jobs import Job, JobCommand\n"
        "def popen(words, **more):\n"
        "    more['stderr'] = None\n"
        "    return started(['/bin/sh', '-c', 'echo; sleep 2'], **more)\n"
        "started = job_runner.subprocess.Popen; job_runner.subprocess.Popen = popen\n"
        f"job_runner.run_job(Job(id='a-s0', results=Path({str(job.results)!r}),"
        "commands=(JobCommand(folder='a-s0', words=('x',)),), after=frozenset()))\n"
    )
    study = subprocess.Popen([sys.executable, "-c", code])
    while not job_runner.is_locked(job):
        time.sleep(0.05)
        assert study.poll() is None
    time.sleep(0.5)
    study.send_signal(signal.SIGKILL)
    study.wait()
    assert job_runner.is_locked(job)
    deadline = time.monotonic() + 10
    while job_runner.is_locked(job):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_job_that_is_stopped_ends_its_command(tmp_path):
    stop = threading.Event()
    stop.set()
    job = a_job(tmp_path / "digits", ["--version"])
    assert job_runner.run_job(job, stop) == job_runner.STOPPED


@pytest.mark.parametrize("name", ["local", "slurm:cluster=local,memory=1"])
def test_every_launcher_runs_jobs_and_tells_what_failed(name, tmp_path):
    if name.startswith("slurm"):
        pytest.importorskip("submitit")
    results = tmp_path / "digits"
    todo = [
        a_job(results, ["--version"], id="fine-s0"),
        a_job(results, ["list", "attakcs"], id="wrong-s0"),
        a_job(results, ["--version"], id="late-s0", after=["wrong-s0"]),
    ]
    ends = {}

    class Watcher(study_run.StudyWatcher):
        def ended(self, end):
            ends[end.job.id] = end.wrong

    launcher = LAUNCHERS.build(Spec.parse(name))
    with pytest.raises(RunError, match="2 of 3 failed; digits/wrong-s0: advbench: unknown kind"):
        study_run.run_jobs(todo, launcher, 2, tmp_path, Watcher())
    assert ends["fine-s0"] == ""
    assert "did you mean 'attacks'" in ends["wrong-s0"]
    assert "late-s0" not in ends


def test_a_job_that_cannot_be_run_does_not_stop_the_others(tmp_path):
    todo = [a_job(tmp_path / "digits", ["--version"], id=name) for name in ("lost-s0", "fine-s0")]
    ends = {}

    class Ended:
        def __init__(self, job):
            self.job = job

        def done(self):
            return True

        def result(self):
            if self.job.id == "lost-s0":
                raise OSError(28, "No space left on device")
            return ""

    class OneFails(Launcher):
        @contextmanager
        def opened(self, workers, folder):
            yield Ended

    class Watcher(study_run.StudyWatcher):
        def ended(self, end):
            ends[end.job.id] = end.wrong

    with pytest.raises(RunError, match=r"1 of 2 failed; digits/lost-s0: OSError: .*No space left"):
        study_run.run_jobs(todo, OneFails(), 1, tmp_path, Watcher())
    assert ends["fine-s0"] == ""


def test_a_launcher_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    launcher = LAUNCHERS.build(Spec("slurm"))
    with (
        pytest.raises(UserError, match=r"pip install -e '.\[slurm\]'"),
        launcher.opened(1, tmp_path),
    ):
        pass


def test_a_job_tells_its_epoch_and_its_attack_with_accuracy_and_time_left(tmp_path, monkeypatch):
    monkeypatch.setattr(job_state_file, "_EVERY", 0.0)
    path = tmp_path / "state.json"
    assert read_job_state(path) is None
    display = JobStateFile(path)
    display.training(20, 2)
    assert read_job_state(path).text == "epoch 3/20"
    time.sleep(0.02)
    shares = {"clean": 0.9, "adv": 0.413}
    display.batch(Watch(batch=5, batches=10, loss=lambda: 1.0, accuracy=shares.get))
    state = read_job_state(path)
    assert state.text == "epoch 3/20  robust 41.3% so far"
    assert state.done == 2.5
    assert 0.02 * 35 <= state.seconds_left < 60
    display.judging("pgd20", 100)
    display.judged(50, 0.5)
    assert read_job_state(path).text == "pgd20  robust accuracy 50.0% so far"
    assert [left_in_words(each) for each in (None, 65, 3725)] == ["", "1:05 left", "1:02:05 left"]


def test_a_terminal_shows_each_running_job_and_about_how_long_all_take(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    progress = Progress(*study_display._COLUMNS, console=console)
    bars = study_display.StudyBars(progress, workers=2)
    bars.begun(6, 2)
    state = JobState(
        what="epoch 3/20",
        done=2.5,
        total=20,
        measured="robust",
        accuracy=0.413,
        seconds_left=65,
    )
    bars.ended(study_run.JobEnd(job=a_job(tmp_path, []), wrong="the loss is [bold]NaN", seconds=60))
    bars.running({"digits/a-s0": state, "digits/b-s0": None}, waiting=2)
    console.print(progress.get_renderable())
    said = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert "FAILED: the loss is [bold]NaN" in said
    rows = {line.split()[0]: line for line in said.splitlines()[1:]}
    assert re.search(r"1:05 left +epoch 3/20  robust 41.3% so far", rows["digits/a-s0"])
    assert "3/6" in rows["jobs"]
    assert "about 1:30 left" in rows["jobs"]
    bars.running({}, waiting=0)
    assert [task.description for task in progress.tasks] == ["jobs"]


STUDY = """\
seeds = [0]
defenses = ["standard", "fgsm-at"]
attacks = ["fgsm", "pgd5"]
data = ["digits"]
train = "--epochs 3 --batch-size 32 --set train.limit=256 --set train.probe=0"
eval = "--n 30 --precision exact"
"""


def started(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "robustbench_cli", "study", "small.toml", "--workers", "2", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@pytest.mark.slow
def test_a_study_that_is_killed_again_and_again_is_complete_and_does_nothing_twice(tmp_path):
    (tmp_path / "small.toml").write_text(STUDY)
    folder = tmp_path / "results" / "small" / "digits"
    finished = {}
    for _ in range(3):
        study = started(tmp_path)
        before = len(finished)
        while study.poll() is None and len(finished) == before:
            time.sleep(0.2)
            for file in folder.glob("*/run.json"):
                if json.loads(file.read_text())["status"] == "ok":
                    finished.setdefault(file, file.stat().st_mtime_ns)
        study.kill()
        study.wait()
    both = [started(tmp_path), started(tmp_path)]  # two at once share the work
    assert [each.wait() for each in both] == [0, 0]
    files = sorted(folder.glob("*/run.json"))
    names = ["fgsm-at-s0", "fgsm-at-s0-eval", "standard-s0", "standard-s0-eval"]
    assert [file.parent.name for file in files] == names
    for file in files:
        record = json.loads(file.read_text())
        assert record["status"] == "ok"
        if record["kind"] == "train":
            assert [row["epoch"] for row in record["history"]] == [1, 2, 3]
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert not [*folder.glob(".jobs/*.json")]
