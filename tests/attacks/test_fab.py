"""FAB asks for a gradient only where its step follows one."""

import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks._fab import FABBase
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch


def attacked(net, x, y, text, norm):
    attack = ATTACKS.build(Spec.parse(text))
    noise = Noise(0, torch.arange(len(y)))
    return attack_batch(net, x, y, attack, Threat(norm, 1e-3), noise, precision="exact")


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize(
    "text",
    ["fab:steps=8", "fab-t:steps=20,targets=2,restarts=2", "fab-t:steps=20,targets=3,within=true"],
)
def test_looks_without_a_gradient_end_at_the_same_images(text, norm, digits_model, monkeypatch):
    net, x, y = digits_model
    found = attacked(net, x, y, text, norm)
    move = FABBase.move

    def with_gradients(self, state, observation, task):
        after = move(self, state, observation, task)
        return {**after, "glance": torch.zeros_like(after["glance"])}

    monkeypatch.setattr(FABBase, "move", with_gradients)
    known = attacked(net, x, y, text, norm)
    assert torch.equal(found.broken, known.broken)
    torch.testing.assert_close(found.x, known.x, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.norm, known.norm, rtol=1e-3, atol=1e-4)
    # Mostly the projections are misclassified, so that every second gradient is spared; where
    # they are not, another forward pass is made.
    assert found.backwards.sum() < 0.85 * known.backwards.sum()
    assert found.forwards.sum() < 1.25 * known.forwards.sum()


def test_a_look_at_every_projection_and_a_step_back_or_another_look(digits_model, monkeypatch):
    net, x, y = digits_model
    seen, move = [], FABBase.move

    def watched(self, state, observation, task):
        after = move(self, state, observation, task)
        seen.append((state, observation, after))
        return after

    monkeypatch.setattr(FABBase, "move", watched)
    attacked(net, x, y, "fab-t:steps=15,targets=2", "L2")
    kinds = {"stepped back": 0, "looked again": 0, "projected": 0}
    for state, observation, after in seen:
        glanced = state["glance"]
        assert bool((observation.grad[glanced] == 0).all())
        stays = (after["x"] == state["x"]).flatten(1).all(1)
        projected = after["moves"] > state["moves"]
        assert not (projected & glanced).any()
        assert bool((after["glance"] <= (projected & after["beyond"])).all())
        assert not (glanced & stays & after["glance"]).any()
        kinds["stepped back"] += int((glanced & ~after["moved"]).sum())
        kinds["looked again"] += int((glanced & after["moved"]).sum())
        kinds["projected"] += int(projected.sum())
    assert min(kinds.values()) > 0, kinds
