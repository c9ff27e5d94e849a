"""What AutoAttack's authors warn of, in whole evaluations of models as users bring them."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import chosen_attacks, resolve_eval_config
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.evaluation import search_choice
from robustbench_cli.models.weights import digest
from robustbench_cli.runs import records

BASE = {"dataset": {"name": "digits"}, "model": {"name": "net"}, "defense": {}}


def evaluated(out, net, attack, source=None, **more):
    """The record of an evaluation of ``net``."""
    typed = {"attack": chosen_attacks([attack], None, {}), "threat": {"eps": 0.12}, **more}
    models = [
        each and Subject(model=each, name=name, weights=digest(each))
        for name, each in (("net", net), ("other", source))
    ]
    request = EvalRequest(
        subject=models[0],
        source=models[1],
        config=resolve_eval_config(BASE, typed, []),
        workspace=Workspace(out=out, device="cpu"),
        command=["x"],
    )
    return records.read(run_evaluation(request, Display()))


class Around(nn.Module):
    """A net behind something."""

    def __init__(self, net):
        super().__init__()
        self.net = net


class Dynamic(Around):
    def forward(self, x):
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            (grad,) = torch.autograd.grad(self.net(leaf).logsumexp(1).sum(), leaf)
        return self.net(x + 0.01 * grad)


class Coin(Around):
    def forward(self, x):
        return self.net(x.flip(3) if random.random() < 0.5 else x)


class Small(Around):
    def forward(self, x):
        if len(x) > 20:
            raise torch.OutOfMemoryError("out of memory")
        return self.net(x)


class Fading(Around):
    def forward(self, x):
        self.net.head.bias.data.mul_(0.999)
        return self.net(x)


class FlatAfter(Around):
    """Rounds every image that is far from the ones a check may look at."""

    def __init__(self, net, known):
        super().__init__(net)
        self.register_buffer("known", known.flatten(1))

    def forward(self, x):
        far = torch.cdist(x.detach().flatten(1), self.known).amin(1) > 0.1
        rounded = (x * 7).round() / 7 + 0 * x
        return self.net(torch.where(far[:, None, None, None], rounded, x))


@pytest.fixture
def net(digits_model):
    return digits_model[0]


def test_a_dynamic_defense_is_evaluated_and_warned_of(tmp_path, net, monkeypatch):
    monkeypatch.setattr(search_choice, "TRIAL_PAYS", 0)
    found = evaluated(tmp_path, Dynamic(net), "pgd2", n=24)
    assert 0 < found.attacks["pgd2"].correct < 24
    (folded,) = found.notes
    dynamic = {each.check: each for each in found.findings}["dynamic"]
    assert "computes gradients in its forward pass" in dynamic.message
    assert found.attacks["pgd2"].trust == "upper bound"
    assert folded.startswith("BatchNorm was not folded")


def test_a_randomised_model_is_searched_as_it_is(tmp_path, net):
    random.seed(0)
    found = evaluated(tmp_path, Coin(net), "fgsm", n=6)
    assert found.search == "float32"


def test_a_small_batch_is_all_the_room_that_is_needed(tmp_path, net):
    wide = evaluated(tmp_path, net, "pgd3", n=40, precision="exact")
    for precision in ("exact", "auto"):
        small = evaluated(tmp_path, Small(net), "pgd3", n=40, precision=precision, batch_size=16)
        assert small.attacks["pgd3"].correct == wide.attacks["pgd3"].correct
        assert not any("out of memory" in note for note in small.notes)


def test_a_model_that_changes_itself_is_refused_before_there_is_a_folder(tmp_path, net):
    with pytest.raises(RunError, match=r"changed its parameter 'net\.head\.bias'"):
        evaluated(tmp_path, Fading(copy.deepcopy(net)), "fgsm", n=8)
    assert not list(tmp_path.glob("*/run.json"))


@pytest.mark.parametrize("attack", ["apgd-dlr-2", "apgd-t:steps=2,targets=2"])
def test_flat_starts_are_seen_wherever_they_are(attack, tmp_path, net, digits_model):
    _, x, _ = digits_model
    assert evaluated(tmp_path, net, attack, n=24).attacks[attack].trust == "sound"
    found = evaluated(tmp_path, FlatAfter(net, x), attack, n=24)
    right = round(found.clean_accuracy * 24)
    (flat,) = (each for each in found.findings if each.check == "flat-start")
    assert flat.message.startswith(f"{attack}: {right} of {right} examples have a zero gradient")
    assert found.attacks[attack].trust == "upper bound"


def test_what_a_mask_closes_is_not_flat(tmp_path, net):
    free = np.ones((24, 8, 8), bool)
    free[::3] = False
    np.savez(tmp_path / "m.npz", mask=free)
    masked = {"eps": 0.12, "mask": f"file:{tmp_path / 'm.npz'}"}
    assert evaluated(tmp_path, net, "apgd-dlr-2", n=24, threat=masked).notes == []


def test_of_two_models_the_one_with_other_classes_is_named(tmp_path, net):
    class Four(Around):
        def forward(self, x):
            return self.net(x)[:, :4]

    for subject, source, named in ((net, Four(net), "the source 'other'"), (Four(net), net, "the")):
        with pytest.raises(UserError, match=f"^{named}.* returns 4 classes, the data set has 10$"):
            evaluated(tmp_path, subject, "fgsm", source, n=4)
