"""A registered architecture with weights from a file, or with those that come with it."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS
from robustbench_cli.models.fitting import Fitting
from robustbench_cli.models.sources import SOURCES, Loaded, LoadRequest, ModelSource
from robustbench_cli.models.weights import read_weights


@SOURCES.register("architecture")
@dataclass(frozen=True, kw_only=True)
class Architecture(ModelSource):
    """A network that ``advbench train`` could train: ``preact-resnet-18``, ``torchvision:NAME``."""

    prefixed: ClassVar[bool] = False
    example: ClassVar[str] = "preact-resnet-18 --weights net.pt"

    text: str

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return it for the name of a registered architecture."""
        try:
            MODELS.entry(Spec.parse(text).name)
        except UserError:
            return None
        return cls(text=text)

    def load(self, wanted: LoadRequest) -> Loaded:
        """Build the network for the data's images, and fill in the weights."""
        spec = MODELS.resolve(Spec.parse(self.text))
        if wanted.weights is None:
            if not MODELS.accepts(spec.name, "pretrained"):
                raise UserError(
                    f"--model {self.text} has no weights of its own: add --weights FILE"
                )
            spec = replace(spec, params={**spec.params, "pretrained": True, "new_head": False})
            config, file = MODELS.build(spec), None
        else:
            config = MODELS.build(spec)
            file = read_weights(wanted.weights, wanted.weights_key)
        shape = wanted.shape()
        if file is not None:
            shape = replace(shape, classes=config.classes_in(file.state) or shape.classes)
        network = config.build(shape)
        notes = config.read(network, file) if file is not None else ()
        return Loaded(
            model=network,
            notes=notes,
            fitting=Fitting(class_names=config.class_names()),
            described=MODELS.describe(config),
        )
