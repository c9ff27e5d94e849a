"""The numbers that are printed of explanations: means over images, with what they leave out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.commands.insertion_deletion import RankCurves, area_under, rank_curves
from robustbench_cli.commands.map_measures import (
    LOCALISED,
    box_overlap,
    energy_in_mask,
    pointing_game,
)
from robustbench_cli.commands.object_places import ObjectPlaces
from robustbench_cli.commands.weights_sanity import INSENSITIVE
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.runs.outcomes import Measure

_EVEN = "their maps are even, which ranks no pixels"
_NO_PLACE = "their maps are empty, or the object's place is not known"
FEW_IMAGES = 30
"""Below so many images a mean is marked: it may be luck."""


@dataclass(frozen=True, kw_only=True)
class ScoredImages:
    """The images on which maps are judged."""

    model: nn.Module
    x: Tensor
    """(N, C, H, W) in [0, 1]."""
    target: Tensor
    """The classes that are explained (N)."""
    places: ObjectPlaces
    noise: Noise
    """Keyed by example, N of them."""
    steps: int
    """Parts in which pixels come and go, for insertion and deletion."""
    at_once: int
    """Images in a pass."""


def mean_measure(
    of: str,
    name: str,
    values: np.ndarray | Tensor,
    *,
    better: Literal["higher", "lower", ""] = "",
    unit: Literal["", "%"] = "",
    why: str = "",
    note: str = "",
) -> Measure:
    """Return the mean of a number per image, of those that have one.

    Args:
        values: (N); NaN where the number means nothing.
        why: the reason, said where images are left out.
        note: said in any case.
    """
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=float)
    known = array[np.isfinite(array)]
    left = len(array) - len(known)
    said = [note] if note else []
    said += [f"{left} of {len(array)} images are left out: {why}"] if left else []
    value = float(known.mean()) if len(known) else None
    return Measure(
        of=of, name=name, value=value, n=len(known), better=better, unit=unit, note="; ".join(said)
    )


def curves_of(maps: Tensor, scored: ScoredImages) -> RankCurves:
    """Return the insertion and deletion curves of maps (N, H, W), each (N, steps + 1)."""
    found = []
    for rows in torch.split(torch.arange(len(maps), device=maps.device), scored.at_once):
        noise = scored.noise.only(rows)
        about = scored.x[rows], scored.target[rows], maps[rows]
        found.append(rank_curves(scored.model, *about, scored.steps, noise))
    return RankCurves(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def map_scores(
    of: str, maps: Tensor, scored: ScoredImages, curves: RankCurves
) -> Iterator[Measure]:
    """Yield what is measured of every method's maps (N, H, W), and of those it is compared with."""
    places, flat = scored.places, maps.flatten(1)
    if places.unknown:
        none = np.full(len(maps), np.nan)
        energy, pointing, why = none, none, places.unknown
    else:
        energy, why = energy_in_mask(maps, places.masks).cpu().numpy(), _NO_PLACE
        pointing = pointing_game(maps, places.masks).cpu().numpy()
    yield mean_measure(of, "energy in mask", energy, better="higher", unit="%", why=why)
    yield mean_measure(of, "pointing game", pointing, better="higher", unit="%", why=why)
    even = (flat.amax(1) == flat.amin(1)).cpu().numpy()
    for name, curve, better in (
        ("insertion AUC", curves.insertion, "higher"),
        ("deletion AUC", curves.deletion, "lower"),
    ):
        area = np.where(even, np.nan, area_under(curve).cpu().numpy())
        side: Literal["higher", "lower"] = "higher" if better == "higher" else "lower"
        yield mean_measure(of, name, area, better=side, why=_EVEN)
    if places.boxes:
        own = maps.cpu().numpy()
        overlap = np.array([box_overlap(own[row], boxes) for row, boxes in places.boxes.items()])
        found = np.where(np.isfinite(overlap), overlap >= LOCALISED, np.nan)
        yield mean_measure(of, "box IoU", overlap, better="higher", unit="%", why=_NO_PLACE)
        yield mean_measure(of, "localised", found, better="higher", unit="%", why=_NO_PLACE)
    empty = (flat.amax(1) <= 0).cpu().numpy().astype(float)
    if empty.any():
        note = "a map of zeros says nothing: nothing that the method looks at moves the score"
        yield mean_measure(of, "empty maps", empty, better="lower", unit="%", note=note)


def change_scores(
    of: str, image: Tensor, facts: Mapping[str, Tensor], scored: ScoredImages
) -> Iterator[Measure]:
    """Yield what is measured of counterfactual images (N, C, H, W).

    Args:
        facts: the method's own numbers of each image (N), by name.
    """
    change, box = (image - scored.x).flatten(1), image.flatten(1)
    outside = ((box < 0) | (box > 1)).double().mean(1)
    note = ""
    if bool(outside.any()):
        note = f"{int((outside > 0).sum())} of {len(image)} changed images leave [0, 1]"
    with torch.no_grad():
        parts = [scored.model(part).argmax(1) for part in torch.split(image, scored.at_once)]
    other = (torch.cat(parts) != scored.target).double()
    stay = int((other == 0).sum())
    kept = f"{stay} of {len(image)} changed images keep their class" if stay else ""
    yield mean_measure(of, "class left", other, unit="%", note=kept)
    yield mean_measure(of, "change L2", torch.linalg.vector_norm(change, dim=1))
    yield mean_measure(of, "change Linf", change.abs().amax(1))
    yield mean_measure(of, "outside [0, 1]", outside, unit="%", note=note)
    for name, values in facts.items():
        yield mean_measure(of, name, values)


def sanity_measure(of: str, name: str, correlation: np.ndarray) -> Measure:
    """Return the mean rank correlation (N) of maps with those of random weights."""
    why = "with random weights their maps are even or not finite"
    found = mean_measure(of, name, correlation, better="lower", why=why)
    if found.value is None or found.value <= INSENSITIVE:
        return found
    note = f"not sensitive to the weights: above {INSENSITIVE:g} with random ones"
    return mean_measure(of, name, correlation, better="lower", why=why, note=note)
