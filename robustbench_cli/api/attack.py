"""Attack a batch that is in memory, with the engine of ``advbench attack``."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cli.api.images import ImageInput, LabelInput, as_split, float_images, read_images
from robustbench_cli.api.lent_model import count_classes, fitted_for, lent, named_model
from robustbench_cli.api.settings import AttackChoice, build_choice, eval_config_of
from robustbench_cli.audit._probe import copier
from robustbench_cli.audit.randomness import randomised
from robustbench_cli.commands.defending import (
    DefenseChoice,
    behind_defenses,
    built_defenses,
    chosen_input_defenses,
    listed_defenses,
)
from robustbench_cli.commands.eval_config import check_attacks
from robustbench_cli.commands.given_model import LOOKED_AT
from robustbench_cli.commands.no_gradient import graphless, refuse_gradient_attacks
from robustbench_cli.commands.targeted import check_images_to_take
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.robust_shares import within_radius
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation import mask_binding
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.rewritten_models import COMPARED_IMAGES
from robustbench_cli.evaluation.search_model import SearchPrecision
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models.defended import defended_part


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack made of N images; everything is on the device of the images given."""

    x: Tensor
    """(N, C, H, W), float32 in [0, 1]: an image that the model gets wrong, or else the one that
    came closest to that.  Within the radius, unless the attack looks for the nearest image."""
    broken: Tensor
    """(N,) bool: whether the model is wrong about ``x``, and ``x`` within the radius.  Of an attack
    with a target: whether it gives ``x`` the target class; False where that is the label."""
    norm: Tensor
    """(N,) float32: how far ``x`` is from the clean image, in the threat's norm."""
    step: Tensor
    """(N,) int32: gradient steps before the first success; -1: none."""


def attack(
    method: AttackChoice,
    model: nn.Module | str,
    x: ImageInput,
    y: LabelInput | None = None,
    *,
    threat: Threat,
    seed: int = 0,
    precision: SearchPrecision = "auto",
    batch_size: int = 256,
    device: str | torch.device | None = None,
    defend: DefenseChoice | Sequence[DefenseChoice] = (),
) -> AttackResult:
    """Attack every image, whether or not the model classifies it correctly.

    An image that the model is right about meets the very attack of ``evaluate`` with this seed,
    if it stands at the same place among the images.  The model is given back as it was.

    Args:
        method: a name as on the command line ("pgd20", "pgd:steps=50,restarts=2") or a dataclass
            of ``robustbench_cli.attacks``.
        model: an ``nn.Module`` or a name, as ``evaluate`` takes it.
        x: images, as ``evaluate`` takes them; float in [0, 1] or uint8.
        y: labels (N), whole numbers in 0..K-1; none with a DataLoader.
        threat: the norm and the radius, in units of pixels in [0, 1].
        seed: of everything that the attack draws.
        precision: "auto" searches with the fastest model that can be vouched for, "exact" with the
            model itself; whether an image is broken is always decided by the model, in float32.
        batch_size: examples under attack at a time; results do not depend on it.
        device: where to attack, e.g. "cuda"; None: where the model is.
        defend: input defenses in front of the model, in order, as ``evaluate`` takes them.

    Raises:
        UserError: a mistake in what was given, as in ``evaluate``.
        RunError: no verdict is possible, as in ``evaluate``.

    Example:
        >>> x_adv = attack("pgd20", model, x, y, threat=Threat("L2", 0.5)).x
    """
    built = build_choice(method)
    if len(built) > 1:
        raise UserError(f"{method!r} is a suite of {len(built)} attacks: name one of them")
    (chosen,) = built.values()
    images, labels = read_images(x, y)
    model = named_model(model, images)
    config = eval_config_of(
        built,
        threat,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        defend=chosen_input_defenses(listed_defenses(defend)),
    )
    wanted = config.threat
    with lent(model, device) as where:
        few = float_images(images[:LOOKED_AT]).to(where)
        model, *_ = fitted_for(model, copier(model), few, labels)
        model = behind_defenses(model, built_defenses(config), images.shape[1:])
        classes, obstacle = count_classes(model, float_images(images[:2]).to(where))
        data = as_split(images, labels, classes).to(where)
        check_attacks(built, wanted, classes)
        if obstacle:
            refuse_gradient_attacks(obstacle, built, wanted)
            model = graphless(model)
        check_images_to_take(built, wanted, labels, [str(each) for each in range(classes)])
        wanted.geometry.fitting(data.image_shape)
        clean = data.images(slice(None))
        with unchanged_model(model):
            part = defended_part(model)
            declared = part is not None and part.randomised
            random = declared or randomised(model, clean[:COMPARED_IMAGES])
        found = attack_batch(
            model,
            clean,
            data.y,
            chosen,
            mask_binding.bind_mask(wanted, model, data),
            Noise(config.seed, torch.arange(len(data), device=where)),
            slots=config.batch_size,
            precision=precision,
            random=random,
            differentiable=not obstacle,
        )
    near = torch.from_numpy(within_radius(found.norm.numpy(), wanted.eps))
    broken = found.broken & near if chosen.minimal else found.broken
    back = images.device
    return AttackResult(
        x=found.x.to(back),
        broken=broken.to(back),
        norm=found.norm.to(back),
        step=found.step.to(back),
    )
