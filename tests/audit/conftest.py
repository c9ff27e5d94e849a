"""A net of five classes, images that it classifies correctly, and probes of models around it."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import Probe
from robustbench_cli.audit._probe import copier
from robustbench_cli.audit.randomness import randomised
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.verifier import unchanged_model

LINF = Threat("Linf", 0.1)


class Around(nn.Module):
    """Something between the images and the logits."""

    def __init__(self, net, forward):
        super().__init__()
        self.net, self._forward = net, forward

    def forward(self, x):
        return self._forward(self.net, x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Softplus(), nn.Linear(16, 5))


@pytest.fixture
def images(net):
    x = torch.rand(32, 1, 4, 4)
    return x, net(x).argmax(1)


def probe_of(model, x, y, attacks=("pgd20",), threat=LINF):
    return Probe(
        model=model,
        x=x,
        y=y,
        threat=threat.probed,
        attacked=threat,
        noise=Noise(0, torch.arange(len(x))),
        random=randomised(model, x, passes=3),
        copy=copier(model),
        stages={name: ATTACKS.build(Spec.parse(name)).stages(threat, 5) for name in attacks},
    )


@pytest.fixture
def found(images):
    """Return what a check finds in a model, as a list of findings."""

    def look(check, model, labels=None, **options):
        x, y = images
        probe = probe_of(model, x, y if labels is None else labels, **options)
        with unchanged_model(model):
            return list(check.look(probe))

    return look
