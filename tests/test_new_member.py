"""Adding an attack or a defense takes one new file and no other edit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ATTACK = '''"""Signs at random (Nobody, 2026), https://example.org/signs."""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import ATTACKS, IterativeAttack


@ATTACKS.register("random-signs", pattern=r"random-signs-?(?P<tries>\\d+)")
@dataclass(frozen=True, kw_only=True)
class RandomSigns(IterativeAttack):
    """Corners of the ball, one after the other."""

    tries: int = 3
    """How many corners."""

    access: ClassVar = "logits"

    def corner(self, task, step_index):
        signs = (task.noise.at(step_index).uniform(task.x) - 0.5).sign()
        return {"x": task.threat.project(task.x + task.threat.eps * signs, task.x)}

    def begin(self, task):
        return self.corner(task, 0 * task.y)

    def move(self, state, observation, task):
        return self.corner(task, observation.step_index + 1)

    def over(self, state, step_index):
        return step_index >= self.tries - 1
'''

DEFENSE = '''"""Training on noise (Nobody, 2026), https://example.org/noise."""

from dataclasses import dataclass

from robustbench_cli.defenses import DEFENSES, Objective


@DEFENSES.register("noise-training")
@dataclass(frozen=True, kw_only=True)
class NoiseTraining(Objective):
    """The criterion on uniform noise in the ball."""

    def perturb(self, step):
        return step.threat.random_start(step.x, step.noise)

    def loss(self, step, logits):
        return step.criterion(logits["adv"], step.y)
'''


@pytest.fixture
def checkout(tmp_path):
    for name in ("robustbench_cli", "presets"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "robustbench_cli/attacks/random_signs.py").write_text(ATTACK)
    (tmp_path / "robustbench_cli/defenses/noise_training.py").write_text(DEFENSE)
    return tmp_path


def advbench(folder, *args):
    done = subprocess.run(
        [sys.executable, "-m", "robustbench_cli", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_new_file_each_is_listed_explained_trained_and_run(checkout):
    listed = advbench(checkout, "list")
    assert "noise-training" in listed
    assert "random-signs" in listed
    assert "tries" in advbench(checkout, "show", "random-signs")
    trained = advbench(
        checkout, "train", "noise-training+awp", "--epochs", "2", "--set", "train.limit=300"
    )
    folder = Path(trained.strip().splitlines()[-1])
    assert (checkout / folder / "model.safetensors").is_file()
    assert len(ATTACK.splitlines()) < 40
    out = advbench(checkout, "eval", "--attack", "random-signs7", "--n", "50")
    assert "random-signs7" in out
    (record,) = (checkout / "results").glob("eval-*/run.json")
    outcome = json.loads(record.read_text())["attacks"]["random-signs7"]
    # Seven corners at most, the clean image, a confirmation and the verdict; no gradient.
    assert 50 < outcome["forwards"] <= 50 * 10
    assert outcome["backwards"] == 0
    assert "noise-training+awp" in advbench(checkout, "report")
