"""Input defenses: changes that are made to an image before any model classifies it, one file each.

``--defend lgs`` puts one in front of a model, whatever that is.  The images that attacks make and
that are stored are those before the defense, and the model behind it decides.  A member is a frozen
dataclass of its parameters and says what of it hides the gradient, and which backward passes an
attack may follow through it all the same.
"""

from robustbench_cli.core.registry import Registry
from robustbench_cli.models.defended import Backward, DefenseContext, InputDefense

__all__ = ["INPUT_DEFENSES", "Backward", "DefenseContext", "InputDefense"]

INPUT_DEFENSES: Registry[InputDefense] = Registry("input-defense", __name__)
