"""``advbench attack``: an evaluation under one attack that keeps its images, with a picture."""

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from robustbench_cli.commands import adversarial_grid
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.evaluate import CLEAN, FinishedEvaluation, run_evaluation
from robustbench_cli.data import Split
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.evaluation.stages import Progress
from robustbench_cli.runs import records

_SHOWN = 8
"""Number of examples in the picture."""


def run_attack_command(request: EvalRequest, display: Display) -> Path:
    """Attack the first ``config.n`` test examples; return the folder.

    It holds ``adversarial.npz`` (x, x_adv, y, clean, adversarial, norm, step) and
    ``adversarial.png``.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
    """
    images = AdversarialImages()

    def then(judged: FinishedEvaluation) -> None:
        _save(judged, images, request)

    return run_evaluation(request, display, keep=images.keep, then=then)


class AdversarialImages:
    """The adversarial images that attacks find, by attack and example, in memory."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, Tensor]] = defaultdict(dict)

    def keep(self, label: str, progress: Progress) -> None:
        """Store the images that the attack of this label has found so far."""
        best = torch.from_numpy(progress.kept)
        rows = progress.found.rows[best].tolist()
        self._found[label].update(zip(rows, progress.found.x[best], strict=True))

    def under(self, label: str, data: Split) -> Tensor:
        """Return all images under an attack (N, C, H, W) in [0, 1], on the CPU.

        Images that were not attacked, because the model is wrong about them, are the clean ones.
        """
        x = data.images(slice(None)).cpu()
        for row, image in self._found[label].items():
            x[row] = image
        return x


def _save(judged: FinishedEvaluation, images: AdversarialImages, request: EvalRequest) -> None:
    data = judged.data
    clean, (label, column) = judged.columns.pop(CLEAN), next(iter(judged.columns.items()))
    x, y = data.images(slice(None)).cpu(), data.y.cpu()
    x_adv = images.under(label, data)
    before = torch.from_numpy(clean.arrays["prediction"])
    after, norm, step = (
        torch.from_numpy(column.arrays[name]) for name in ("prediction", "norm", "step")
    )
    path = write_arrays(
        judged.folder / "adversarial.npz",
        {
            "x": x.numpy(),
            "x_adv": x_adv.numpy(),
            "y": y.numpy(),
            "clean": before.numpy().astype("int64"),
            "adversarial": after.numpy().astype("int64"),
            "norm": norm.numpy(),
            "step": step.numpy().astype("int64"),
        },
    )
    # The most telling ones first: what the attack broke.
    broken = (before == y) & (after != y)
    rows = torch.argsort(broken.int(), descending=True, stable=True)[:_SHOWN]
    names = data.classes
    adversarial_grid.draw_adversarial_grid(
        judged.folder / "adversarial.png",
        x[rows],
        x_adv[rows],
        [(names[int(before[i])], names[int(after[i])]) for i in rows],
        f"{label} on {request.subject.name}, {request.config.threat}",
        float((x_adv - x).abs().max()),
    )
    judged.recorder.update(examples=records.filed(path))
