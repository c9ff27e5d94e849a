"""Programs that hold a model and its weights: torch.export (.pt2) and TorchScript (.pt).

https://docs.pytorch.org/docs/stable/export.html.  A program is code, as a Python file is: it comes
from somebody that is trusted.
"""

import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from robustbench_cli.core.errors import UserError, in_one_line
from robustbench_cli.models.sources import SOURCES, Loaded, LoadRequest, ModelSource
from robustbench_cli.models.sources._tensors_only import tensors_only

_ENDINGS = (".pt2", ".pt", ".pth", ".ts", ".torchscript")


@SOURCES.register("program")
@dataclass(frozen=True, kw_only=True)
class Program(ModelSource):
    """A file that holds a whole model, as ``torch.export.save`` or ``torch.jit.save`` wrote it."""

    prefixed: ClassVar[bool] = False
    example: ClassVar[str] = "net.pt2"

    path: Path

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return it for the path of such a file."""
        return cls(path=Path(text).expanduser()) if text.endswith(_ENDINGS) else None

    def load(self, wanted: LoadRequest) -> Loaded:
        """Load the model with its weights."""
        if wanted.weights is not None:
            raise UserError(f"model {self.path} holds its own weights: leave --weights out")
        if not self.path.is_file():
            raise UserError(f"model {self.path}: no such file")
        read = _exported if self.path.suffix == ".pt2" else _scripted
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of formats that are no longer developed
                model = read(self.path)
        except Exception as error:  # damaged bytes make the readers raise nearly anything
            why = textwrap.shorten(in_one_line(error), 100)
            raise UserError(
                f"model {self.path} cannot be loaded ({why}): expected a program of "
                "torch.export (.pt2) or TorchScript; a state dict goes with the model that it is "
                f"for: --model file.py:function --weights {self.path}"
            ) from error
        return Loaded(model=model)


class ExportedModel(nn.Module):
    """An exported program, whose mode is fixed: it was exported in one.

    Args:
        program: images (B, C, H, W) to what the model returned.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: torch.Tensor) -> Any:
        """Return what the exported model returned."""
        return self.program(x)

    def train(self, mode: bool = True) -> Self:
        """Only note the mode: what is computed was decided when the model was exported."""
        for module in self.modules():
            module.training = mode
        return self


def _exported(path: Path) -> nn.Module:
    with tensors_only():  # torch.export would try the unsafe way next
        return ExportedModel(torch.export.load(path).module())


def _scripted(path: Path) -> nn.Module:
    model: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return model
