"""Models whose answer to an image depends on the others in its batch."""

import runpy
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


def live_batchnorm() -> nn.Module:
    """Normalise by the statistics of the batch: BatchNorm without running statistics."""
    net = trained("relu-standard")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return net


class Standardised(nn.Module):
    """A network whose features are standardised over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("mlp-standard")

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return 5 * F.batch_norm(z, None, None, training=True)


def standardised_logits() -> nn.Module:
    """Standardise each logit over the batch, which a batch of one does not allow."""
    return Standardised()


class Centred(nn.Module):
    """A network whose logits are centred over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("elu-standard")

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z - z.mean(0)


def centred_logits() -> nn.Module:
    """Subtract the mean of each logit over the batch."""
    return Centred()


class Attending(nn.Module):
    """A network whose images look at each other."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("gelu-standard")

    def forward(self, x: Tensor) -> Tensor:
        flat, z = x.flatten(1), self.net(x)
        alike = (flat @ flat.T).softmax(1)
        return 0.5 * z + 0.5 * alike @ z


def attention() -> nn.Module:
    """Mix the logits of an image with those of similar ones in the batch."""
    return Attending()


class Bright(nn.Module):
    """A network whose images are scaled to the brightness of their batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("leaky-standard")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(0.305 * x / x.mean().clamp_min(1e-3))


def batch_brightness() -> nn.Module:
    """Divide by the mean pixel of the whole batch."""
    return Bright()


class Largest(nn.Module):
    """A network whose features are divided by the largest in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("softplus-standard")

    def forward(self, x: Tensor) -> Tensor:
        features = self.net.body(x)
        return self.net.head(3 * features / features.amax(0).clamp_min(1e-3))


def batch_maximum() -> nn.Module:
    """Divide each feature by its largest value in the batch."""
    return Largest()
