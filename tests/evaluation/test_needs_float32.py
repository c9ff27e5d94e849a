"""Attacks whose loss rounding would hide never see a faster model."""

import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation import batch_attack
from robustbench_cli.evaluation.search_model import SearchModel


class NeverAskedError(Exception):
    pass


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("pgd3:climbs=kl,start=gauss", True),
        ("pgd3:climbs=kl,start=uniform", False),
        ("pgd3:start=gauss", False),
        ("nes:queries=150", True),
        ("ddn:steps=3", True),
    ],
)
def test_a_divergence_from_a_gaussian_start_is_climbed_in_float32(
    text, exact, digits_model, monkeypatch
):
    net, x, y = digits_model

    def asked(_x):
        raise NeverAskedError

    fast = SearchModel(model=asked, about="bfloat16")
    monkeypatch.setattr(batch_attack, "chosen_search_model", lambda *_args, **_rest: (fast, []))
    attack, norm = ATTACKS.build(Spec.parse(text)), "L2" if "ddn" in text else "Linf"
    noise = Noise(0, torch.arange(len(y)))

    def attacked():
        return batch_attack.attack_batch(
            net, x, y, attack, Threat(norm, 0.1), noise, precision="auto"
        )

    if exact:
        assert attacked().broken.any()
    else:
        with pytest.raises(NeverAskedError):
            attacked()
