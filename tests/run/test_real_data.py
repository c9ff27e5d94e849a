"""MNIST and the CIFAR-10 JPEGs, end to end; skipped where the data is absent."""

import pytest

from robustbench_cli import folders
from robustbench_cli.cli import main


def test_mnist_through_its_preset(data_dir, tmp_path, capsys):
    common = ["--data-dir", str(data_dir), "--out", str(tmp_path)]
    small = ["--set", "train.limit=1500", "--set", "train.probe=0", "--batch-size", "25"]
    args = ["train", "--dataset", "mnist", "--preset", "standard-mnist", "--epochs", "3"]
    assert main([*args, *common, *small]) == 0
    attacks = ["--attack", "pgd10", "--n", "200"]
    assert main(["eval", *attacks, *common]) == 0
    run = folders.every(tmp_path)[-1]
    assert run.config["threat"] == {"norm": "Linf", "eps": 0.3}
    assert run.clean_accuracy > 0.8
    assert run.attacks["pgd10"].robust_accuracy < 0.05


def test_cifar_jpegs_through_hf(data_dir, tmp_path):
    pytest.importorskip("pyarrow")
    folder = data_dir / "cifar10-jpeg"
    if not folder.is_dir():
        pytest.skip(f"no CIFAR-10 JPEGs at {folder}")
    out = ["--out", str(tmp_path)]
    args = [
        *("train", "trades:steps=2+awp:warmup=0", "--dataset", f"hf:{folder},augment=crop-flip"),
        *("--model", "preact-resnet-18:width=4", "--epochs", "1", "--set", "train.limit=256"),
        *("--set", "train.probe=0"),
    ]
    assert main([*args, *out]) == 0
    assert main(["eval", "--attack", "pgd5", "--n", "64", *out]) == 0
    run = folders.every(tmp_path)[-1]
    assert run.config["threat"]["eps"] == 8 / 255
    assert run.attacks["pgd5"].n == 64
