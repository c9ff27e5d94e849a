"""The models of RobustBench (Croce et al., 2021), https://arxiv.org/abs/2010.09670.

``robustbench:Carmon2019Unlabeled``: architecture and preprocessing are those of the package
``robustbench``; the weights are a file of its model zoo.
"""

import importlib.util
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

from torch import nn

from robustbench_cli.core.errors import UserError, hint, in_one_line
from robustbench_cli.models.sources import (
    SOURCES,
    Loaded,
    LoadRequest,
    ModelSource,
    package_of_extra,
)
from robustbench_cli.models.sources._tensors_only import tensors_only
from robustbench_cli.models.weights import fill_from_file, read_weights

_OWN = ("mu", "sigma", "mean", "std")
"""Buffers of a normalisation that several published files lack: the architectures set them."""
_UNUSED = ("model_preact_hl1.", ".scores")
"""Tensors that published files hold and the architectures do not."""


@SOURCES.register("robustbench", positional="model")
@dataclass(frozen=True, kw_only=True)
class RobustBenchModel(ModelSource):
    """A model of RobustBench's zoo, by its name there."""

    example: ClassVar[str] = "robustbench:Carmon2019Unlabeled"

    model: str
    dataset: Literal["cifar10", "cifar100", "imagenet"] | None = None
    """The data set it was trained on, where the zoo has several of that name."""
    threat: Literal["Linf", "L2", "corruptions"] | None = None
    """The threat model it is listed under, where it is under several."""

    def load(self, wanted: LoadRequest) -> Loaded:
        """Build the network; its weights come from the file, else from the zoo's."""
        dataset, threat, entry = self._entry()
        if isinstance(entry["gdrive_id"], list):
            raise UserError(
                f"model {self._text!r} is made of {len(entry['gdrive_id'])} weights files, which "
                "--weights cannot name: build it in a file.py with robustbench.utils.load_model"
            )
        try:
            with tensors_only():
                network: nn.Module = entry["model"]()
        except Exception as error:  # some of them download weights as they are built
            raise UserError(
                f"model {self._text!r} cannot be built: {in_one_line(error)}"
            ) from error
        path = wanted.weights or self._file(wanted.folder, dataset, threat, entry["gdrive_id"])
        file = read_weights(path, wanted.weights_key)
        notes = fill_from_file(network, file, own=_OWN, extra=_UNUSED)
        return Loaded(model=network, notes=notes)

    @property
    def _text(self) -> str:
        return f"robustbench:{self.model}"

    def _entry(self) -> tuple[str, str, dict[str, Any]]:
        with _architectures_alone():
            zoo = package_of_extra("robustbench.model_zoo.models", "robustbench", self._text)
        tables = {
            (dataset.value, threat.value): models
            for dataset, threats in zoo.model_dicts.items()
            for threat, models in threats.items()
            if self.dataset in (None, dataset.value) and self.threat in (None, threat.value)
        }
        found = [
            (*key, models[self.model]) for key, models in tables.items() if self.model in models
        ]
        if not found:
            names = {name for models in tables.values() for name in models}
            near = hint(self.model, names, "https://robustbench.github.io")
            raise UserError(f"unknown RobustBench model {self.model!r}{near}")
        if len(found) > 1:
            several = ", ".join(f"dataset={d},threat={t}" for d, t, _ in found)
            raise UserError(
                f"RobustBench has several models {self.model!r}: write {self._text},... with one "
                f"of {several}"
            )
        return found[0]

    def _file(self, folder: Path, dataset: str, threat: str, drive: str | None) -> Path:
        """Return the zoo's weights file, downloaded on first use."""
        path = folder / "robustbench" / dataset / threat / f"{self.model}.pt"
        if path.is_file():
            return path
        place = f"put the file at {path}, or pass --weights FILE"
        if not drive:
            raise UserError(f"the weights of model {self._text!r} are not in the zoo: {place}")
        gdown = package_of_extra("gdown", "robustbench", self._text)
        try:
            with tempfile.TemporaryDirectory() as elsewhere:
                got = gdown.download(id=drive, output=f"{elsewhere}/weights.pt", quiet=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                part = shutil.move(got, path.with_suffix(".part"))
            Path(part).replace(path)
        except Exception as error:  # of the network, of the drive, or of the disk
            raise UserError(
                f"the weights of model {self._text!r} cannot be downloaded "
                f"({textwrap.shorten(in_one_line(error), 120)}): {place}"
            ) from error
        return path


@contextmanager
def _architectures_alone() -> Iterator[None]:
    """Let parts of the package be imported without the package itself.

    That would import its benchmark, and with it packages that are not on the package index.
    """
    known = "robustbench" in sys.modules
    spec = importlib.util.find_spec("robustbench")
    if known or spec is None:
        yield
        return
    stand_in = ModuleType("robustbench")
    stand_in.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["robustbench"] = stand_in
    try:
        yield
    finally:
        del sys.modules["robustbench"]
