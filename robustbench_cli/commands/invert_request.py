"""The settings of one ``advbench invert``, and the parts that follow from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from robustbench_cli.commands.explain_request import explanations_by_label
from robustbench_cli.commands.load_model import Choice
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.explanations import EXPLANATIONS, Explanation
from robustbench_cli.inversion.net import FUSIONS, Fusion
from robustbench_cli.training.inverter import InverterTraining

PREDICTION = "prediction"
"""The exposure that is always measured: confidences, and no explanation."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """The settings of one ``advbench invert``, as they were typed."""

    choice: Choice
    expose: tuple[str, ...]
    """Explanations by name, and ``prediction``."""
    fusion: str
    surrogate: bool
    attacker: int | None
    n: int | None
    width: int
    training: InverterTraining
    classifier: str | None
    """The architecture of the independent classifier and the surrogate; None: the data's usual."""
    workspace: Workspace
    command: list[str]
    name: str | None = None

    @property
    def checked_fusion(self) -> Fusion:
        """The fusion by its name.

        Raises:
            UserError: there is none of that name.
        """
        found = next((each for each in FUSIONS if each == self.fusion), None)
        if found is None:
            raise UserError(f"--fusion {self.fusion!r}{hint(self.fusion, FUSIONS)}")
        return found

    def explanations(self) -> dict[str, Explanation]:
        """Return the explanations that are exposed, by label.

        Raises:
            UserError: a name or a parameter that there is not, or one that is given twice.
        """
        named = (text for text in self.expose if text.strip().lower() != PREDICTION)
        found = explanations_by_label(named)
        if self.surrogate and not found:
            raise UserError("--surrogate needs an explanation to stand in for: --expose gradient")
        return found

    def table(self, explanations: Mapping[str, Explanation]) -> dict[str, Any]:
        """Return the settings as the record holds them."""
        exposed = {label: EXPLANATIONS.describe(each) for label, each in explanations.items()}
        return {
            "expose": exposed,
            "fusion": self.checked_fusion,
            "surrogate": self.surrogate,
            "attacker": self.attacker,
            "n": self.n,
            "width": self.width,
            **asdict(self.training),
        }
