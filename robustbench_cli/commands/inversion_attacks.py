"""The attacks of one ``advbench invert``: a network for each thing that the model publishes."""

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.invert_request import Inversion
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.example_rng import stream_key
from robustbench_cli.data import Split
from robustbench_cli.explanations import Explanation
from robustbench_cli.inversion import published
from robustbench_cli.inversion.classifier import classifier_updates, fit_classifier
from robustbench_cli.inversion.net import (
    InversionShape,
    Inverter,
    PublishedAnswers,
    shuffled,
)
from robustbench_cli.inversion.published import Publisher
from robustbench_cli.inversion.splits import AuditSplits
from robustbench_cli.inversion.surrogate import ImageInverter, SurrogateInverter
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.runs.recorder import Recorder
from robustbench_cli.training import checkpoint
from robustbench_cli.training.inverter import AttackerData, fit_inverter, rebuilt_images

_TRIES, _SLOWER = 3, 2
"""How often a network that learns nothing is trained, each time from other weights, as narrow
layers may begin without a gradient, and at a rate so many times smaller."""


@dataclass(frozen=True, kw_only=True)
class InversionAttack:
    """One inversion network to train: the name of its row and what it learns from."""

    label: str
    name: str = ""
    """The explanation's label; empty: there is none."""
    explanation: Explanation | None = None
    shuffled: bool = False


@dataclass(frozen=True, kw_only=True)
class RebuiltImages:
    """The images of one row, and what is to be known of them."""

    images: Tensor
    """(N, C, H, W) in [0, 1], on the CPU."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class InversionAudit:
    """Everything that the attacks of one command share."""

    request: Inversion
    subject: Subject
    shape: Shape
    splits: AuditSplits
    classifier: ConfigTable
    folder: Path
    recorder: Recorder
    display: Display
    explained: dict[str, list[PublishedAnswers]] = field(default_factory=dict)
    """What was published last, by the explanation's label: two attacks ask for it."""

    @property
    def seed(self) -> int:
        return self.request.training.seed

    @cached_property
    def confidences(self) -> list[PublishedAnswers]:
        """The victim's confidences on the training, validation and private images, without maps."""
        plain = Publisher(model=self.subject.model)
        parts = self.splits
        return [plain.answers(each) for each in (parts.train, parts.validation, parts.evaluation)]

    def fresh(self, label: str) -> nn.Module:
        """Return a new classifier of the attacker's or the auditor's own."""
        torch.manual_seed(stream_key(self.seed, label, "weights"))
        model = MODELS.build(spec_of(self.classifier)).build(self.shape)
        return model.to(self.splits.train.y.device)

    def classifier_of(self, label: str, targets: Tensor) -> nn.Module:
        """Return a classifier trained on the attacker's images, or that of an earlier process.

        Args:
            targets: a distribution over the classes for each training image (N, K).
        """
        model, path = self.fresh(label), self.kept(f"{label}-classifier")
        if path.is_file():
            model.load_state_dict(checkpoint.load_tensors(path)[0])
            return model.eval().requires_grad_(False)
        progress = partial(self._told, f"{label} classifier", classifier_updates())
        fit_classifier(model, self.splits.train, targets, f"{label} {self.seed}", progress)
        checkpoint.save_tensors(path, model.state_dict(), {})
        return model

    @cached_property
    def surrogate(self) -> nn.Module:
        """The attacker's own model, which learned to answer as the victim does."""
        return self.classifier_of("surrogate", self.confidences[0].confidences)

    def kept(self, label: str) -> Path:
        """Return the place of a file that only an unfinished run needs."""
        plain = "".join(c if c.isalnum() or c in "+-" else "-" for c in label)
        path = self.folder / f"unfinished-{plain}.safetensors"
        self.recorder.temporary.append(path)
        return path

    def _told(self, label: str, of: int, done: int) -> None:
        self.display.fitting(label, done, of)

    def rebuilt(self, attack: InversionAttack) -> RebuiltImages:
        """Return what an attack rebuilds of the private images."""
        done = self.kept(f"{attack.label} rebuilt")
        if done.is_file():
            tensors, said = checkpoint.load_tensors(done)
            return RebuiltImages(images=tensors["images"], note=said["note"])
        train, validation, private = self.known(attack)
        maps, parts = train.maps, self.splits
        shape = InversionShape(
            classes=self.shape.classes,
            image=(self.shape.channels, self.shape.height, self.shape.width),
            map_channels=0 if maps is None else maps.shape[1],
            fusion=self.request.checked_fusion,
            width=self.request.width,
        )
        by_surrogate = self.request.surrogate and maps is not None
        kind: type[SurrogateInverter] | type[ImageInverter]
        kind = SurrogateInverter if by_surrogate else ImageInverter
        training, floor = self.request.training, self.error_of_the_mean
        for number in range(_TRIES):
            tried = replace(training, lr=training.lr / _SLOWER**number)
            called = attack.label + f", try {number + 1}" * bool(number)
            drawn = ("weights", number) if number else ("weights",)
            torch.manual_seed(stream_key(self.seed, "inversion", attack.label, *drawn))
            net: Inverter = kind(shape).to(parts.train.y.device)
            state = fit_inverter(
                net,
                AttackerData(examples=parts.train, known=train, foreign_maps=attack.shuffled),
                AttackerData(examples=parts.validation, known=validation),
                tried,
                attack.label,
                self.kept(called),
                partial(self._told, called, training.epochs),
            )
            if state.best < floor:
                break
        images = rebuilt_images(net, private, training.batch_size)
        note = ""
        if state.best >= floor:
            note = "the attack learned nothing: it is no better than the mean image"
        elif tried.lr != training.lr:
            before = "once" if number == 1 else f"{number} times"
            note = f"learned nothing {before} before, at higher rates: this one is {tried.lr:g}"
        elif maps is not None and not maps.any():
            note = "its maps are zero for all of the attacker's images"
        elif state.epoch - state.best_epoch < training.patience:
            note = f"the attack still improved after {state.epoch} epochs: more rebuild better"
        checkpoint.save_tensors(done, {"images": images}, {"note": note})
        return RebuiltImages(images=images, note=note)

    @cached_property
    def mean_image(self) -> Tensor:
        """The mean (C, H, W) of the attacker's training images, on the CPU."""
        return whole_images(self.splits.train).mean(0)

    @cached_property
    def error_of_the_mean(self) -> float:
        """The mean squared error of the mean image, on the validation images."""
        return float((whole_images(self.splits.validation) - self.mean_image).square().mean())

    def known(self, attack: InversionAttack) -> list[PublishedAnswers]:
        """Return what is known of the attacker's training, validation and of the private images."""
        if attack.explanation is None:
            return self.confidences
        if attack.name not in self.explained:
            self.explained.clear()  # one explanation's maps at a time
            self.explained[attack.name] = self.published(attack)
        found = self.explained[attack.name]
        if attack.shuffled:
            purposes = ("train", "validation", "evaluation")
            found = [
                shuffled(each, purpose, self.seed)
                for each, purpose in zip(found, purposes, strict=True)
            ]
        assert found[0].maps is not None
        scale = published.map_scale(found[0].maps)
        return [published.scaled(each, scale) for each in found]

    def published(self, attack: InversionAttack) -> list[PublishedAnswers]:
        """Return what is published of the three parts, with maps as they are.

        With a surrogate only the maps of the training images are its own; of the others nobody
        knows a map, and confidences are all there is.
        """
        publisher = Publisher(
            model=self.surrogate if self.request.surrogate else self.subject.model,
            explanation=attack.explanation,
            seed=self.seed,
            progress=partial(self.display.fitting, f"{attack.name} of the attacker's images"),
        )
        parts = self.splits.train, self.splits.validation, self.splits.evaluation
        if not self.request.surrogate:
            return [publisher.answers(part) for part in parts]
        train, *others = self.confidences
        maps = publisher.answers(parts[0], train.confidences.argmax(1)).maps
        return [train._replace(maps=maps), *others]


def whole_images(data: Split) -> Tensor:
    """Return all images (N, C, H, W) of a part, on the CPU."""
    return data.images(slice(None)).cpu()
