"""The CIFAR-10 JPEGs: the verdicts of the command line; skipped where the images are absent."""

import numpy as np
import pytest
import torch

from robustbench_cli import Threat, attack, evaluate, load_run
from robustbench_cli.cli import main
from robustbench_cli.runs import folders


def test_cifar_jpegs(data_dir, tmp_path):
    pytest.importorskip("pyarrow")
    folder = data_dir / "cifar10-jpeg"
    if not folder.is_dir():
        pytest.skip(f"no CIFAR-10 JPEGs at {folder}")
    out = ["--out", str(tmp_path), "--quiet"]
    net = ["--model", "preact-resnet-18:width=4", "--lr", "0.02", "--batch-size", "32"]
    small = ["--epochs", "3", "--set", "train.limit=500", "--set", "train.probe=0"]
    train = ["train", "standard", "--dataset", f"hf:{folder}", *net]
    assert main([*train, *small, "--name", "mine", *out]) == 0
    eps = ["--eps", "2/255", "--n", "48"]
    assert main(["eval", "--attack", "pgd5", "--attack", "apgd-ce:steps=5", *eps, *out]) == 0
    run, judged = load_run(tmp_path / "mine"), folders.every(tmp_path)[-1]
    x, y = run.test_images(48)
    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    attacks, threat = ["pgd5", "apgd-ce:steps=5"], Threat("Linf", 2 / 255)
    result = evaluate(run.model, pixels, y.tolist(), attacks=attacks, threat=threat)
    with np.load(tmp_path / judged.id / "examples.npz") as arrays:
        for label in attacks:
            for key, values in result.verdicts[label].items():
                assert np.array_equal(values, arrays[f"{label}/{key}"]), (label, key)
    assert result.robust_accuracy["pgd5"] == judged.attacks["pgd5"].robust_accuracy
    assert result.broken["pgd5"].sum() > 0
    x_adv = attack("pgd5", run.model, x, y, threat=Threat("L2", 0.5)).x
    assert float((x_adv - x).flatten(1).norm(dim=1).max()) <= 0.5 + 1e-4
