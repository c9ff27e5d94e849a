"""MNIST, Fashion-MNIST, CIFAR and SVHN, downloaded and stored as torchvision does.

TorchVision (TorchVision maintainers, 2016), https://docs.pytorch.org/vision.
"""

import contextlib
import importlib
import io
import textwrap
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, Dataset, Split, SplitName


@dataclass(frozen=True, kw_only=True)
class TorchvisionSet(Dataset):
    """A data set of ``torchvision.datasets``, downloaded into the data folder if absent."""

    title: ClassVar[str]
    """Name of the class in torchvision."""
    folder: ClassVar[str] = ""
    """Folder that torchvision uses, under the data folder."""

    @abstractmethod
    def arrays(self, opened: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Return images uint8 (N, C, H, W), labels (N) and class names of an opened torchvision
        set."""

    def arguments(self, split: SplitName) -> dict[str, Any]:
        """Return the arguments that select a split in the torchvision class."""
        return {"train": split == "train"}

    def place(self, split: SplitName, root: Path) -> Path:
        """Return the file or folder in which torchvision looks for a split."""
        return root / self.folder

    def at_hand(self, root: Path) -> bool:
        datasets = importlib.import_module("torchvision.datasets")
        wanted: tuple[SplitName, ...] = ("train", "test")
        try:
            for split in wanted:
                getattr(datasets, self.title)(root=root, download=False, **self.arguments(split))
        except Exception:  # absent and damaged files raise errors of many types
            return False
        return True

    def load(self, split: SplitName, root: Path) -> Split:
        # Imported here because it takes a second, which other data sets need not spend.
        datasets = importlib.import_module("torchvision.datasets")
        name = DATASETS.describe(self)["name"]
        place = self.place(split, root)
        there, absent = False, list[Path]()
        silence = io.StringIO()
        try:
            # Checked first, because a failed download leaves empty folders behind.
            absent = [each for each in (place, *place.parents) if not each.exists()]
            there = any(place.iterdir()) if place.is_dir() else place.exists()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                opened = getattr(datasets, self.title)(
                    root=root, download=True, **self.arguments(split)
                )
            x, y, classes = self.arrays(opened)
        except Exception as error:  # network, disk and damaged files raise errors of many types
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
            if there:
                raise UserError(
                    f"dataset {name!r} in {place} is damaged or incomplete: "
                    f"delete that and run again ({reason})"
                ) from error
            for made in absent:
                with contextlib.suppress(OSError):
                    made.rmdir()
            raise UserError(
                f"dataset {name!r} is not in {root} and could not be downloaded (no network?): "
                f"put it there as torchvision lays it out, or pass --data-dir ({reason})"
            ) from error
        if len(x) == 0 or len(x) != len(y) or not 0 <= int(y.min()) <= int(y.max()) < len(classes):
            raise UserError(
                f"dataset {name!r} in {place} is damaged: {len(x)} images and {len(y)} labels "
                f"that should be 0..{len(classes) - 1}: delete that and run again"
            )
        return Split(x.contiguous(), y.long(), classes)


@DATASETS.register("mnist")
@dataclass(frozen=True, kw_only=True)
class MNIST(TorchvisionSet):
    """Handwritten digits (LeCun et al., 1998), http://yann.lecun.com/exdb/mnist."""

    title: ClassVar[str] = "MNIST"
    folder: ClassVar[str] = "MNIST/raw"
    mean: ClassVar[tuple[float, ...] | None] = (0.0,)
    std: ClassVar[tuple[float, ...] | None] = (1.0,)
    eps: ClassVar[Mapping[str, float]] = {"Linf": 0.3, "L2": 2.0, "L1": 10.0}
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": {"name": "small-cnn"},
        "optimizer": {"name": "adam"},
        "schedule": {"name": "cosine"},
        "train": {"epochs": 20, "lr": 0.001},
    }

    def arrays(self, opened: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        return opened.data[:, None], opened.targets, tuple(map(str, range(10)))


@DATASETS.register("fashion-mnist", aliases=("fashionmnist",))
@dataclass(frozen=True, kw_only=True)
class FashionMNIST(TorchvisionSet):
    """Grey 28x28 pictures of clothes (Xiao et al., 2017), https://arxiv.org/abs/1708.07747."""

    title: ClassVar[str] = "FashionMNIST"
    folder: ClassVar[str] = "FashionMNIST/raw"
    mean: ClassVar[tuple[float, ...] | None] = (0.0,)
    std: ClassVar[tuple[float, ...] | None] = (1.0,)
    eps: ClassVar[Mapping[str, float]] = {"Linf": 0.1, "L2": 1.5, "L1": 10.0}
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": {"name": "small-cnn"},
        "optimizer": {"name": "adam"},
        "schedule": {"name": "cosine"},
        "train": {"epochs": 20, "lr": 0.001},
    }

    def arrays(self, opened: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        return opened.data[:, None], opened.targets, tuple(opened.classes)


@DATASETS.register("cifar10", aliases=("cifar-10",))
@dataclass(frozen=True, kw_only=True)
class CIFAR10(TorchvisionSet):
    """32x32 colour images of ten classes (Krizhevsky, 2009), https://www.cs.toronto.edu/~kriz.

    Mean and std are those used by Fast-AT, Rice et al. and AWP.
    """

    augment: Literal["none", "crop", "crop-flip"] = "crop-flip"
    """Random shifts by up to ``pad`` pixels (crop), and mirror images (crop-flip)."""

    title: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    mean: ClassVar[tuple[float, ...] | None] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, ...] | None] = (0.2471, 0.2435, 0.2616)
    eps: ClassVar[Mapping[str, float]] = {"Linf": 8 / 255, "L2": 0.5, "L1": 12.0}
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": {"name": "preact-resnet-18"},
        # Rice et al. (2020): 200 epochs, the learning rate divided by 10 at 1/2 and at 3/4.
        "train": {"epochs": 200, "lr": 0.1},
    }

    def arrays(self, opened: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        images = torch.from_numpy(opened.data).permute(0, 3, 1, 2)
        return images, torch.tensor(opened.targets), tuple(opened.classes)


@DATASETS.register("cifar100", aliases=("cifar-100",))
@dataclass(frozen=True, kw_only=True)
class CIFAR100(CIFAR10):
    """32x32 colour images of 100 classes (Krizhevsky, 2009), https://www.cs.toronto.edu/~kriz."""

    title: ClassVar[str] = "CIFAR100"
    folder: ClassVar[str] = "cifar-100-python"
    mean: ClassVar[tuple[float, ...] | None] = (0.50708, 0.48655, 0.44092)
    std: ClassVar[tuple[float, ...] | None] = (0.26733, 0.25644, 0.27615)


@DATASETS.register("svhn")
@dataclass(frozen=True, kw_only=True)
class SVHN(TorchvisionSet):
    """House numbers, 32x32 (Netzer et al., 2011), http://ufldl.stanford.edu/housenumbers.

    Not augmented by default, as in the literature; digits must not be mirrored.
    """

    title: ClassVar[str] = "SVHN"
    mean: ClassVar[tuple[float, ...] | None] = (0.5, 0.5, 0.5)
    std: ClassVar[tuple[float, ...] | None] = (0.5, 0.5, 0.5)
    eps: ClassVar[Mapping[str, float]] = {"Linf": 8 / 255, "L2": 0.5, "L1": 12.0}
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": {"name": "preact-resnet-18"},
        # Rice et al. (2020): 200 epochs, the learning rate divided by 10 at 1/2 and at 3/4.
        "train": {"epochs": 200, "lr": 0.01},
    }

    def arguments(self, split: SplitName) -> dict[str, Any]:
        return {"split": split}

    def place(self, split: SplitName, root: Path) -> Path:
        return root / f"{split}_32x32.mat"

    def arrays(self, opened: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        labels = torch.from_numpy(np.asarray(opened.labels, dtype=np.int64))
        return torch.from_numpy(opened.data), labels, tuple(map(str, range(10)))
