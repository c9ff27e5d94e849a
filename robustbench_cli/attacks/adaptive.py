"""Adaptive attacks (Tramer et al., 2020), https://arxiv.org/abs/2002.08347, chosen by themselves.

The building blocks are those of the paper; that a search over them can be automated was shown by
Yao et al. (2021, A3), https://arxiv.org/abs/2102.11860.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Field

from robustbench_cli.attacks import ATTACKS, Attack, Stage
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.attacks.apgd import CrossEntropy
from robustbench_cli.attacks.autoattack import AutoAttack
from robustbench_cli.attacks.corners import Corners
from robustbench_cli.attacks.md import MD
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.attacks.pma import PMA
from robustbench_cli.attacks.rays import RayS
from robustbench_cli.attacks.square import Square
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.views import AVERAGED_DECLARED_VIEWS, DECLARED_VIEWS, VIEWS


class Block(NamedTuple):
    """A building block: an attack, and the view of the model that it works on."""

    attack: Attack
    passes: int
    """The most passes that one of its restarts or targets takes, forward and backward, with the
    clean pass and the verdict."""
    view: str = ""
    """A view as it is typed, ``declared:smoothed``; empty: the model itself."""


@ATTACKS.register("adaptive")
@dataclass(frozen=True, kw_only=True)
class Adaptive(Attack):
    """Try one building block after the other on what still stands, and count what each broke.

    First margin decomposition and Auto-PGD on the model itself.  Then searches on views of the
    model (``advbench list views``), each of them only where the model gives a reason for it: logits
    that saturate, gradients that are zero or contradict the answers, random draws, neighbours that
    matter, input defenses that declare other backward passes; where gradients are sound, that costs
    a few passes.  Then random corners, 500 queries of Square, PMA, the other members of AutoAttack
    with its settings, and last a decision-based attack.  So it breaks whatever AutoAttack breaks,
    with two and three classes, too, where that has other members.  On a randomised model only the
    searches on views run, those on the average of its draws among them.
    """

    budget: Annotated[int, Field(ge=1)] = 15_000
    """Passes per example, forward and backward.  A block that might exceed it is left out, so that
    with a small budget only the cheap ones run.  AutoAttack alone may take 10,700."""

    @property
    def no_target(self) -> str:
        return "its blocks and their reasons are those of a search for any wrong class"

    def needs_gradients(self, threat: Threat) -> bool:
        return False  # blocks that follow gradients are left out where there are none

    def members(self, threat: Threat, classes: int = ENOUGH_CLASSES) -> Mapping[str, Attack]:
        return {name: block.attack for name, block in self._blocks(threat, classes).items()}

    def stages(self, threat: Threat, classes: int) -> list[Stage]:
        return [
            Stage(
                name,
                block.attack,
                number,
                view=VIEWS.build(Spec.parse(block.view)) if block.view else None,
                most_spent=self.budget - block.passes,
                deterministic_only=not block.view,
            )
            for name, block in self._blocks(threat, classes).items()
            if classes >= block.attack.needs and threat.norm in block.attack.measures
            for number in range(block.attack.restarts_or_targets(classes))
        ]

    def _blocks(self, threat: Threat, classes: int) -> dict[str, Block]:
        first, *others = (
            (name, Block(attack, _PASSES.get(name, 204)))
            for name, attack in AutoAttack().members(threat, classes).items()
        )
        return {
            "md": Block(MD(), 84),
            **dict([first]),
            **dict(_on_views()),
            "corners": Block(Corners(), 102),
            "square-500": Block(Square(queries=500), 503),
            "pma": Block(PMA(), 204),
            **dict(others),
            "rays": Block(RayS(), 1002),
        }


_PASSES: Mapping[str, int] = {"fab-t": 402, "square": 5003}
"""The passes of AutoAttack's members, as ``Block`` counts them, where they are not Auto-PGD's."""


def _on_views() -> Iterator[tuple[str, Block]]:
    """Yield the searches on views, the cheapest first, by the name that records count them by."""
    margin = PGD(steps=40, climbs="margin")
    for view in (
        *DECLARED_VIEWS,
        "rescaled-logits",
        "straight-through",
        "surrogate-modules",
        "unrolled-steps",
        "smooth-activations",
    ):
        yield f"{view}/pgd", Block(margin, 84, view)
        yield f"{view}/apgd-ce", Block(CrossEntropy(), 204, view)
    yield "smoothed-gradient/pgd", Block(margin, 740, "smoothed-gradient")
    for view in ("averaged-straight-through", "averaged-draws", *AVERAGED_DECLARED_VIEWS):
        yield f"{view}/pgd", Block(margin, 1432, view)
        yield f"{view}/apgd-ce", Block(CrossEntropy(), 3352, view)
    yield "fixed-batch/pgd", Block(PGD(climbs="margin"), 359, "fixed-batch")
    yield "student/pgd", Block(PGD(steps=40, climbs="margin", restarts=2), 125, "student")
