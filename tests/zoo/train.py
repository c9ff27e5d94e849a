"""Train the networks of the zoo with ``advbench train`` and keep their tensors in ``weights``.

    python tests/zoo/train.py              # all that are missing
    python tests/zoo/train.py relu-trades  # these, again

The digits take seconds each; MNIST and the CIFAR-10 JPEGs, minutes, with ADVBENCH_DATA set.
"""

import os
import runpy
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file, save_file

from robustbench_cli.cli import main
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape

HERE = Path(__file__).parent
NETS = runpy.run_path(str(HERE / "nets.py"))


@MODELS.register("zoo")
@dataclass(frozen=True, kw_only=True)
class ZooNet(ModelConfig):
    """A network of the zoo, for the trainer."""

    kind: str = "relu"

    normalize: bool | Literal["signed"] = False

    def build(self, shape: Shape) -> Classifier:
        plain = NETS["ARCHITECTURES"][self.kind]()
        return Classifier(self.normalizer(shape), plain.body, plain.head)


DIGITS = ("--dataset", "digits", "--epochs", "20")
ROBUST = (*DIGITS, "--eps", "0.1")
RECIPES = {
    **{f"{kind}-standard": ("standard", *DIGITS) for kind in NETS["ARCHITECTURES"]},
    **{f"{kind}-pgd-at": ("pgd-at", *ROBUST) for kind in ("relu", "gelu", "elu")},
    **{f"{kind}-trades": ("trades", *ROBUST) for kind in ("relu", "gelu", "elu", "leaky")},
    "vit-pgd-at": ("pgd-at", *ROBUST, "--epochs", "80", "--lr", "0.001"),
    "relu-mixup": ("standard+mixup", *DIGITS),
    "gelu-smoothing": ("pgd-at+label-smoothing", *ROBUST),
    "elu-mixup": ("pgd-at+mixup", *ROBUST),
    "relu-fast-at": ("fast-at", *ROBUST),
    "gelu-free-at": ("free-at", *ROBUST),
    "elu-mart": ("mart", *ROBUST),
    "softplus-pgd-at": ("pgd-at", *ROBUST),
    # Trained on normalised images (mean 0.3, deviation 0.4), on [0, 255], and on [-1, 1].
    "relu-signed": ("standard", *DIGITS, "--set", "model.normalize=signed"),
    "mnist-standard": ("standard", "--dataset", "mnist", "--epochs", "1"),
    "mnist-fast-at": ("fast-at", "--dataset", "mnist", "--epochs", "3", "--eps", "0.2"),
    "cifar-standard": ("standard", "--dataset", "CIFAR", "--epochs", "4"),
    "cifar-fast-at": ("fast-at", "--dataset", "CIFAR", "--epochs", "6"),
}
"""The arguments of ``advbench train`` for each network; CIFAR stands for its folder."""


def train(name: str, out: Path) -> None:
    """Train one network and write its tensors, but for the normalisation's."""
    jpegs = Path(os.environ.get("ADVBENCH_DATA", "data"), "cifar10-jpeg")
    command = [each.replace("CIFAR", f"hf:{jpegs}") for each in RECIPES[name]]
    kind = name.partition("-")[0]
    seed = str(sorted(RECIPES).index(name))
    options = ["--model", f"zoo:kind={kind}", "--seed", seed, "--out", str(out), "--name", name]
    if main(["train", *command, *options, "--quiet"]):
        raise SystemExit(f"{name}: training failed")
    state = load_file(out / name / "model.safetensors")
    save_file(
        {key: value for key, value in state.items() if not key.startswith("normalize.")},
        NETS["WEIGHTS"] / f"{name}.safetensors",
    )


if __name__ == "__main__":
    kept = {path.stem for path in NETS["WEIGHTS"].glob("*.safetensors")}
    with tempfile.TemporaryDirectory() as folder:
        for wanted in sys.argv[1:] or [name for name in RECIPES if name not in kept]:
            train(wanted, Path(folder))
