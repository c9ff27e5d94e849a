"""Presets whose length or scale follows from what their paper's code counts."""

import pytest
import torch

from robustbench_cli.commands import train_config
from robustbench_cli.core.registry import Spec
from robustbench_cli.defenses import DEFENSES

CIFAR = 50_000


def updates(config):
    """How often the weights are updated: an epoch passes once over the labelled images."""
    share = config.train.extra_share if config.extra else 0.0
    return config.train.epochs * CIFAR / (config.train.batch_size * (1 - share))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("vat-cifar10-preact-resnet-18", 500 * 400),
        ("rst-table1-cifar10", 200 * CIFAR / 256),  # their epochs have 50,000 of any kind
        ("rst-fig1-rst-stab", 800 * CIFAR / 256),
        ("rst-fig1-baseline-stab", 800 * CIFAR / 256),
    ],
)
def test_a_run_is_as_long_as_that_of_the_paper_s_code(name, theirs, asking):
    assert updates(train_config.resolve_train_config(asking(name), [])) == pytest.approx(
        theirs, rel=0.01
    )


def test_vat_s_radius_goes_with_its_augmentation():
    config = train_config.resolve_train_config({"preset": "vat-cifar10-preact-resnet-18"}, [])
    assert (config.defense["vat"]["radius"], config.dataset["augment"]) == (8.0, "crop-flip")


def test_mmc_minimises_what_its_code_does():
    """||z - center||^2, to which Keras' l2(1e-4) adds 1e-4 ||w||^2: its gradient is 2e-4 w."""
    config = train_config.resolve_train_config({"preset": "mmc-cifar10-at-resnet-110"}, [])
    params = {key: value for key, value in config.defense["mmc-at"].items() if key != "name"}
    mmc = DEFENSES.build(Spec("mmc-at", params))
    logits = -torch.tensor([[4.0, 9.0], [1.0, 25.0]])
    assert mmc.score(logits, torch.tensor([0, 1])).tolist() == [4.0, 25.0]
    assert (config.optimizer["weight_decay"], config.optimizer["decay_norm"]) == (2e-4, False)
