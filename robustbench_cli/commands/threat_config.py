"""The threat of a run, from its table of settings: validated here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from robustbench_cli import masks
from robustbench_cli.config.schema import validated
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.geometries import geometry
from robustbench_cli.core.threat import Norm, Threat
from robustbench_cli.data import Dataset


@dataclass(frozen=True)
class _OnlyNorm:
    norm: Norm


def resolve_threat(table: Mapping[str, Any], dataset: Dataset) -> Threat:
    """Return the threat that a ``[threat]`` table describes.

    Where no size is given it is the usual one of the data set in this norm, or else of the norm;
    the mask is written out with all its parameters.

    Args:
        table: ``norm``, ``eps`` and ``mask``, as typed or as a preset has them; each may be absent.

    Raises:
        UserError: an unknown setting or a bad value, e.g. a radius for pixels in [0, 255].
    """
    known = [each.name for each in fields(Threat)]
    if unknown := [key for key in table if key not in known]:
        raise UserError(f"unknown setting 'threat.{unknown[0]}'{hint(unknown[0], known)}")
    norm = validated(_OnlyNorm, {"norm": table.get("norm", "Linf")}).norm
    usual = dataset.eps.get(norm, geometry(norm).usual)
    threat = validated(Threat, {"eps": usual, **table, "norm": norm})
    return replace(threat, mask=masks.canonical(threat.mask))
