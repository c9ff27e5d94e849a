"""What verdict checks look at: the verdicts of every attack of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustbench_cli.attacks import Attack, Stage


@dataclass(frozen=True, kw_only=True)
class JudgedAttack:
    """The verdicts of one attack on N examples; arrays (N)."""

    label: str
    attack: Attack
    stages: Sequence[Stage]
    eps: float
    swept: bool
    """True for a point of a sweep."""
    broken: np.ndarray
    """True where the attack made a right answer wrong, within the radius."""
    share: np.ndarray
    """How often the model is right, clean and under the attack: 0 or 1, but for a random one."""
    by: np.ndarray
    """The stage that broke the example; -1: none."""
    step: np.ndarray
    """The number of steps before the success; -1: none."""
    tried: np.ndarray
    """The number of stages that the example has been through."""
    zero_gradient: np.ndarray
    """True where the attack says that its loss had no gradient at the start."""

    @property
    def black_box(self) -> np.ndarray:
        """The positions of the stages that use no gradient."""
        return np.array([i for i, s in enumerate(self.stages) if s.attack.black_box], int)

    @property
    def gradient_only(self) -> bool:
        """True if every stage follows gradients."""
        return not len(self.black_box)

    @property
    def steps(self) -> int:
        """The number of steps of its longest stage; 0 where it has no such number."""
        return max((int(getattr(stage.attack, "steps", 0)) for stage in self.stages), default=0)


@dataclass(frozen=True, kw_only=True)
class Control:
    """Other attacks on some of the examples that every gradient attack left standing."""

    tried: np.ndarray
    """The examples, a mask (N)."""
    corners: np.ndarray
    """Those that random corners of the ball broke, a mask (N)."""
    search: np.ndarray
    """Those that random search (Square) broke, a mask (N)."""
    targeted: np.ndarray
    """Those that short steps towards the likeliest wrong classes broke, a mask (N)."""

    @property
    def broken(self) -> np.ndarray:
        """Those that any of these attacks broke, a mask (N)."""
        return np.asarray(self.corners | self.search | self.targeted)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The images that an evaluation ended with, shown one by one to a fresh copy of the model."""

    tried: np.ndarray
    """The examples, a mask (N)."""
    differs: np.ndarray
    """Those that the copy classifies differently, a mask (N)."""
    worse: np.ndarray
    """Those that were counted as right, and that the copy gets wrong, a mask (N)."""
    nearer: np.ndarray
    """Those that were counted as right, and that the copy gets wrong once the image is moved a
    little, a mask (N)."""


@dataclass(frozen=True, kw_only=True)
class AttackedAgain:
    """Examples that fell under a small radius of a sweep, attacked anew under the largest one."""

    label: str
    """The attack under the largest radius."""
    points: Sequence[str]
    """The labels of the same attack under every radius of the sweep."""
    tried: int
    stood: int
    """How many of them the attack did not break this time."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The verdicts of an evaluation on N examples."""

    right: np.ndarray
    """True where the model is right about the clean image (N, bool)."""
    classes: int
    attacks: Sequence[JudgedAttack]
    random: bool
    """True if the model is randomised, so that one success may be luck."""
    answers: np.ndarray | None = None
    """The predicted class of each clean image (N), of a randomised model the most frequent one;
    the number of classes stands for a rejection.  None: not known."""
    control: Control | None = None
    replay: Replay | None = None
    again: Sequence[AttackedAgain] = ()
    targeted: Sequence[JudgedAttack] = ()
    """Attacks with a target, whose successes are images that reached it."""

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.right)

    @property
    def standing(self) -> np.ndarray:
        """True where no attack broke a right answer (N, bool)."""
        broken = [each.broken for each in self.attacks]
        return np.asarray(self.right & ~np.any(broken, axis=0)) if broken else self.right
