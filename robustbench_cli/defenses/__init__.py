"""Defenses: one objective, any number of modifiers, composed as ``trades+awp+he``.

An *objective* says which inputs to train on and what to minimise there.  A *modifier* changes
how any objective is trained.  Both hold hyper-parameters and nothing else: what changes during
training lives in the model or in auxiliary modules.  Each is one file of this package, found by
its registered name.
"""

from robustbench_cli.defenses._parts import DEFENSES, Adversarial, Defense, Modifier, Objective
from robustbench_cli.defenses._recipe import Recipe, objective_names, parse

__all__ = [
    "DEFENSES",
    "Adversarial",
    "Defense",
    "Modifier",
    "Objective",
    "Recipe",
    "objective_names",
    "parse",
]
