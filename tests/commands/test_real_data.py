"""MNIST and the CIFAR-10 JPEGs, end to end; skipped where the data is absent."""

import pytest

from robustbench_cli.cli import main
from robustbench_cli.runs import folders


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


def test_a_net_learns_mnist_from_generated_digits_beside_real_ones(data_dir, tmp_path):
    common = ["--data-dir", str(data_dir), "--out", str(tmp_path), "--quiet"]
    fit = ["synth", "fit", "gaussian", "--dataset", "mnist", "--limit", "300", "--name", "fitted"]
    assert main([*fit, *common]) == 0
    drawn = ["synth", "sample", "fitted", "--n", "600", "--name", "drawn", "--out", str(tmp_path)]
    assert main([*drawn, "--quiet"]) == 0
    train = ["train", "standard", "--dataset", "mnist", "--model", "strided-cnn", "--epochs", "10"]
    small = ["train.limit=300", "train.probe=0", "optimizer.name=adam", "train.extra_share=0.5"]
    more = [word for pair in small for word in ("--set", pair)]
    images = ["--extra-data", f"npz:{tmp_path}/drawn/samples.npz", "--lr", "0.002"]
    assert main([*train, *more, *images, "--name", "fed", *common]) == 0
    assert main(["eval", "--run", "fed", "--attack", "fgsm", "--n", "500", *common]) == 0
    fed, judged = folders.every(tmp_path)[-2:]
    assert fed.dataset["extra"] == 600
    assert judged.clean_accuracy > 0.6  # sixty updates


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
