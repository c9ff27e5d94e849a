"""Shipped presets, trained as ``advbench train --preset NAME --smoke`` trains them."""

import math

import pytest

from robustbench_cli.cli import main
from robustbench_cli.commands import train_config
from robustbench_cli.runs import records

DIFFERENT = [
    "awp-table2-at-awp",  # moved weights
    "fast-cifar10",  # one step, a rate for each update
    "feature-scatter-table1",  # transport over a batch
    "free-cifar10",  # several updates of a batch
    "he-table2-alp-he",  # a head of its own, a clean and an adversarial pass
    "mmc-cifar10-at-resnet-110",  # fixed centres, targeted steps
    "rice-table1-svhn-l2",  # L2, the last epoch
    "rice-table2-mixup",  # shares of labels, the best epoch
    "vat-cifar10-preact-resnet-18",  # no labels in the inner loss
]
"""Presets that train by code which the others do not run."""


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_preset_trains_on_a_few_digits(name, tmp_path):
    words = ["train", "--preset", name, "--smoke", "--epochs", "2", "--name", "run", "--quiet"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    run = records.read(tmp_path / "run")
    assert (run.status, run.config["preset"], run.dataset["name"]) == ("ok", name, "digits")
    assert (
        run.config["defense"]
        == train_config.resolve_train_config({"preset": name}, [], smoke=True).defense
    )
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert all(math.isfinite(row["loss"]) for row in run.history)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trades:steps=1"], []),
        (["trades:steps=1", "--dataset", "digits", "--model", "digits-cnn"], []),
        (
            ["standard", "--dataset", "hf:/nowhere", "--model", "wrn-28-10"],
            [
                "--smoke: digits in place of hf:/nowhere, "
                "digits-cnn in place of wrn:depth=28,width=10"
            ],
        ),
        (
            ["--preset", "trades-table5-mnist"],
            ["--smoke: digits in place of mnist, digits-cnn in place of small-cnn:normalize=false"],
        ),
    ],
)
def test_a_smoke_run_says_what_it_trains_in_place_of_what(words, told, tmp_path, capsys):
    out = ["--out", str(tmp_path), "--name", "run"]
    assert main(["train", *words, "--smoke", "--epochs", "1", *out]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("--smoke")] == told
