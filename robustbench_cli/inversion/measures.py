"""How near rebuilt images come to the private ones: in pixels, and in what classifiers see."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, install_command
from robustbench_cli.models.taps import EMBEDDING, tapped
from robustbench_cli.runs.outcomes import Measure

_AT_ONCE = 512
_LARGEST_PSNR = 100.0
"""Decibels at which the ratio of an image that is rebuilt exactly is cut off."""


def inversion_measures(
    of: str, rebuilt: Tensor, private: Tensor, labels: Tensor, judges: "Judges", note: str = ""
) -> Iterator[Measure]:
    """Yield the numbers of one row.

    Args:
        of: the row's name.
        rebuilt: images (N, C, H, W) in [0, 1], on the CPU.
        private: the images that they stand for.
        labels: their classes (N).
    """
    n = len(private)
    errors = (rebuilt - private).square().mean((1, 2, 3)).double()
    decibels = (-10 * errors.clamp_min(1e-30).log10()).clamp_max(_LARGEST_PSNR)
    yield Measure(of=of, name="MSE", value=float(errors.mean()), n=n, note=note)
    yield Measure(of=of, name="PSNR", value=float(decibels.mean()), n=n)
    yield _structure(of, rebuilt, private)
    answers, features = judges.victim_sees(rebuilt)
    _, own = judges.victim_sees(private)
    alike = torch.cosine_similarity(features, own, dim=1)
    yield Measure(of=of, name="embedding", value=float(alike.mean()), n=n)
    shares = {"victim": answers, "independent": judges.independent_sees(rebuilt)}
    for name, found in shares.items():
        right = float((found == labels).float().mean())
        yield Measure(of=of, name=f"{name} recognises", value=right, n=n, unit="%")


class Judges:
    """The classifiers that look at rebuilt images: the victim, and one that knows nothing of it."""

    def __init__(self, victim: nn.Module, independent: nn.Module, device: torch.device) -> None:
        self._victim, self._independent, self._device = victim, independent, device

    @torch.no_grad()
    def victim_sees(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the victim's predicted classes (N) and its penultimate features (N, F)."""
        classes, features = [], []
        for part in torch.split(images, _AT_ONCE):
            with tapped(self._victim, [EMBEDDING]) as found:
                classes.append(self._victim(part.to(self._device)).argmax(1).cpu())
            features.append(found[EMBEDDING].cpu())
        return torch.cat(classes), torch.cat(features)

    @torch.no_grad()
    def independent_sees(self, images: Tensor) -> Tensor:
        """Return the classes (N) that the independent classifier predicts."""
        parts = torch.split(images, _AT_ONCE)
        return torch.cat([self._independent(p.to(self._device)).argmax(1).cpu() for p in parts])


def check_similarity_package() -> None:
    """Check that the package which computes SSIM is installed.

    Raises:
        UserError: it is not.
    """
    try:
        import skimage.metrics  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(f"SSIM needs scikit-image: {install_command('invert')}") from None


def _structure(of: str, rebuilt: Tensor, private: Tensor) -> Measure:
    """Return the mean structural similarity (Wang et al., 2004), by scikit-image.

    Its window has 7 pixels a side, or as many as the image has room for.
    """
    from skimage.metrics import structural_similarity

    side = min(7, *private.shape[2:])
    window = side - (side + 1) % 2
    if window < 3:
        small = f"images of {private.shape[2]}x{private.shape[3]} are too small for a window"
        return Measure(of=of, name="SSIM", value=None, n=len(private), note=small)
    # scikit-image has no types.
    values = [
        structural_similarity(  # type: ignore[no-untyped-call]
            a, b, win_size=window, channel_axis=0, data_range=1.0
        )
        for a, b in zip(rebuilt.double().numpy(), private.double().numpy(), strict=True)
    ]
    return Measure(of=of, name="SSIM", value=float(np.mean(values)), n=len(private))
