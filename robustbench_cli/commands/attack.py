"""``advbench attack``: an evaluation under one attack that keeps its images, with a picture."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.commands import adversarial_grid
from robustbench_cli.commands.adversarial_grid import GridAnswer, GridRow
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.commands.finished_evaluation import FinishedEvaluation
from robustbench_cli.data import Split
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.evaluation.stages import Progress
from robustbench_cli.evaluation.verifier import device_of, predict
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.runs import records

_SHOWN = 8
"""Number of examples in the picture."""


def run_attack_command(request: EvalRequest, display: Display) -> Path:
    """Attack the first ``config.n`` test examples; return the folder.

    It holds ``adversarial.npz`` (x, x_adv, y, clean, adversarial, norm, step, the confidence of
    both predictions, the names of classes and, where they have some, of images) and
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
    before = torch.from_numpy(clean.arrays["prediction"]).long()
    after, norm, step = (
        torch.from_numpy(column.arrays[name]) for name in ("prediction", "norm", "step")
    )
    sure = [
        confidences(request.subject.model, pictures, predicted.long(), request.config.batch_size)
        for pictures, predicted in ((x, before), (x_adv, after))
    ]
    path = write_arrays(
        judged.folder / "adversarial.npz",
        {
            "x": x.numpy(),
            "x_adv": x_adv.numpy(),
            "y": y.numpy(),
            "clean": before.numpy(),
            "adversarial": after.numpy().astype("int64"),
            "norm": norm.numpy(),
            "step": step.numpy().astype("int64"),
            "clean_confidence": sure[0].numpy(),
            "adversarial_confidence": sure[1].numpy(),
            "classes": np.array(data.classes),
            "index": data.ids.cpu().numpy(),
            **({"name": np.array(data.names)} if data.named else {}),
        },
    )
    # The most telling ones first: what the attack broke, and of that what the model is surest of.
    broken = (before == y) & (after != y)
    rows = torch.argsort(broken.float() + sure[1].nan_to_num() / 2, descending=True, stable=True)
    rows = rows[:_SHOWN]
    names = data.names or [f"image {i}" for i in data.ids.tolist()]

    def answer(place: int, predicted: torch.Tensor, how_sure: torch.Tensor) -> GridAnswer:
        number = int(predicted[place])
        return GridAnswer(
            prediction=data.classes[number] if number < len(data.classes) else "rejected",
            right=number == int(y[place]),
            confidence=float(how_sure[place]),
        )

    adversarial_grid.draw_adversarial_grid(
        judged.folder / "adversarial.png",
        x[rows],
        x_adv[rows],
        [
            GridRow(
                name=names[i],
                label=data.classes[int(y[i])],
                clean=answer(i, before, sure[0]),
                adversarial=answer(i, after, sure[1]),
                note=f"distance {float(norm[i]):.4g}" + (f", step {int(step[i])}" * (step[i] >= 0)),
            )
            for i in rows.tolist()
        ],
        f"{label} on {request.subject.name}, {request.config.threat}",
        float((x_adv - x).abs().max()),
    )
    judged.recorder.update(examples=records.filed(path))


def confidences(model: nn.Module, x: Tensor, predicted: Tensor, batch: int) -> Tensor:
    """Return the softmax probabilities (N) of predicted classes, as float32 on the CPU.

    Of a randomised model they are those of one draw; NaN for a prediction that has no logit.

    Args:
        x: images (N, C, H, W) in [0, 1].
        predicted: classes (N), int64.
        batch: how many images are shown to the model at a time.
    """
    found, where = [], device_of(model)
    for start in range(0, len(x), batch):
        pictures, classes = x[start : start + batch], predicted[start : start + batch]
        shares = predict(model, pictures.to(where)).float().softmax(1).cpu()
        known = classes < shares.shape[1]
        picked = shares.gather(1, classes.clamp(0, shares.shape[1] - 1)[:, None]).squeeze(1)
        found.append(torch.where(known, picked, torch.nan))
    return torch.cat(found)
