"""The input of every library in a benchmark, and the judgement of its output."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.commands.load_model import restore
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Norm, Threat
from robustbench_cli.data import DATASETS, Dataset, Split
from robustbench_cli.data.shape import shape_of
from robustbench_cli.models import MODELS
from robustbench_cli.runs import records

ROUNDING = 1e-6
"""The tolerance for pixels outside [0, 1], for rounding in float32."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, the images to attack, and the settings that all attacks share."""

    model: nn.Module
    """In evaluation mode, float32, contiguous, weights that ask for gradients: as loaded."""
    x: Tensor
    """(N, C, H, W) in [0, 1], on the device of the model."""
    y: Tensor
    classes: int
    threat: Threat
    batch_size: int
    seed: int = 0
    cw_steps: int = 1000
    """Adam steps for each constant that C&W tries."""

    @property
    def eps(self) -> float:
        """The radius."""
        return self.threat.eps

    @property
    def step(self) -> float:
        """PGD's step: 2/255 at 8/255."""
        return self.threat.eps / 4

    def first(self, n: int) -> "Case":
        """The same with so many images only."""
        return replace(self, x=self.x[:n], y=self.y[:n])

    def batched(self, attack: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Run an attack that takes a batch (x, y) as a whole on every batch."""
        parts = zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True)
        return torch.cat([attack(x, y).detach() for x, y in parts])

    def predictions(self, x: Tensor) -> Tensor:
        """Classes (N), from one float32 pass in the batches that were attacked."""
        with torch.no_grad():
            return torch.cat([self.model(part).argmax(1) for part in x.split(self.batch_size)])


@dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of the model and of the images."""

    data: str | None
    """``mnist``, another registered data set, or a folder of parquet files in ``root``."""
    root: Path
    run: Path | None
    model: str
    width: int | None
    weights: Path | None

    @property
    def trained(self) -> bool:
        """True if the weights are trained ones: of a run, or from a file."""
        return self.run is not None or self.weights is not None

    def dataset(self) -> Dataset:
        """The data set: as asked for, else what the run was trained on."""
        if self.data is None and self.run is not None:
            return DATASETS.build(spec_of(records.read(self.run).config["dataset"]))
        name = self.data or "cifar10-jpeg"
        folder = self.root / name
        local = folder.is_dir() and any(folder.glob("*.parquet"))
        return DATASETS.build(Spec.parse(f"hf:{folder}" if local else name))

    def network(self, dataset: Dataset, split: Split) -> nn.Module:
        """The model, in evaluation mode."""
        if self.run is not None:
            return restore(records.read(self.run), self.run).eval()
        spec = MODELS.resolve(Spec.parse(self.model))
        params = {**spec.params, **({"width": self.width} if self.width else {})}
        config = MODELS.build(Spec(spec.name, params))
        # A weights file brings the channel statistics along; otherwise they do not matter.
        model = config.build(shape_of(dataset, split))
        if self.weights is not None:
            config.read(model, self.weights)
        return model.eval()


@dataclass(frozen=True, kw_only=True)
class Size:
    """The number of images that are attacked, and how."""

    n: int
    batch_size: int
    eps: float | None
    """None: the radius that is usual for the data set."""
    right_only: bool
    """Only images that the model gets right, so that nobody gains by leaving out the others."""
    cw_steps: int
    seed: int


def build(source: Source, size: Size, device: torch.device) -> dict[Norm, Case]:
    """The case under each norm: the first ``n`` test images, once for all attacks."""
    torch.manual_seed(size.seed)
    dataset = source.dataset()
    split = dataset.load("test", source.root)
    model = source.network(dataset, split).to(device)
    radii: dict[Norm, float] = {"Linf": size.eps or dataset.eps["Linf"], "L2": dataset.eps["L2"]}
    more = 4 if size.right_only else 1
    images = split.only(slice(0, more * size.n)).to(device)
    case = Case(
        model=model,
        x=images.images(slice(None)),
        y=images.y,
        classes=len(split.classes),
        threat=Threat("Linf", radii["Linf"]),
        batch_size=size.batch_size,
        seed=size.seed,
        cw_steps=size.cw_steps,
    )
    if not source.trained:
        # An untrained net is right nowhere: its own predictions make every image worth attacking.
        case = replace(case, y=case.predictions(case.x))
    if size.right_only:
        right = case.predictions(case.x) == case.y
        case = replace(case, x=case.x[right], y=case.y[right])
    case = case.first(size.n)
    return {norm: replace(case, threat=Threat(norm, eps)) for norm, eps in radii.items()}


class Verdict(NamedTuple):
    """The result of an attack: its stored images, classified again in float32."""

    robust: float
    """Share that is right, clean and attacked; an image outside the ball breaks nothing."""
    outside: int
    """Images outside the ball (of Linf attacks) or the box."""
    norm: float
    """Median L2 distance over images that are right when clean; infinite where none was found."""
    found: float
    """Share of those images for which an adversarial one was found."""


def judged(case: Case, crafted: Tensor) -> Verdict:
    """Classify what an attack returned; clean errors count as broken whatever it made of them."""
    stored = crafted.to(case.x).clamp(0, 1)
    boxed = ((crafted.to(case.x) - stored).abs() <= ROUNDING).flatten(1).all(1)  # not for NaN
    ball = case.threat.inside(stored, case.x) if case.threat.norm == "Linf" else boxed
    inside = boxed & ball
    right = case.predictions(case.x) == case.y
    hit = right & inside & (case.predictions(stored) != case.y)
    norms = torch.where(hit, (stored - case.x).flatten(1).norm(dim=1), torch.inf)[right]
    return Verdict(
        robust=float((right & ~hit).float().mean()),
        outside=int((~inside).sum()),
        norm=float(norms.median()) if len(norms) else float("nan"),
        found=float(hit[right].float().mean()) if len(norms) else float("nan"),
    )
