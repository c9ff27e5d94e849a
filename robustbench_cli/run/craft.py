"""``advbench attack``: an evaluation under one attack that keeps the images, with a picture."""

from pathlib import Path

import torch

from robustbench_cli import picture, records
from robustbench_cli.engine.evaluate import Progress
from robustbench_cli.engine.journal import write_arrays
from robustbench_cli.run.display import Display
from robustbench_cli.run.evaluate import CLEAN, Judged, Request, run

SHOWN = 8
"""Examples in the picture."""


def attack(request: Request, display: Display) -> Path:
    """Attack the first ``config.n`` test examples; return the folder.

    It holds ``adversarial.npz`` (x, x_adv, y, clean, adversarial, norm, step) and
    ``adversarial.png``.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
    """
    found: dict[int, torch.Tensor] = {}

    def keep(progress: Progress) -> None:
        best = torch.from_numpy(progress.kept)
        rows = progress.found.rows[best].tolist()
        found.update(zip(rows, progress.found.x[best], strict=True))

    def then(judged: Judged) -> None:
        _save(judged, found, request)

    return run(request, display, keep=keep, then=then)


def _save(judged: Judged, found: dict[int, torch.Tensor], request: Request) -> None:
    data = judged.data
    clean, (label, column) = judged.columns.pop(CLEAN), next(iter(judged.columns.items()))
    x, y = data.images(slice(None)).cpu(), data.y.cpu()
    x_adv = x.clone()
    for row, image in found.items():
        x_adv[row] = image
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
    rows = torch.argsort(broken.int(), descending=True, stable=True)[:SHOWN]
    names = data.classes
    picture.grid(
        judged.folder / "adversarial.png",
        x[rows],
        x_adv[rows],
        [(names[int(before[i])], names[int(after[i])]) for i in rows],
        f"{label} on {request.subject.name}, {request.config.threat}",
        float((x_adv - x).abs().max()),
    )
    judged.recorder.update(examples={"file": path.name, "sha256": records.sha256(path)})
