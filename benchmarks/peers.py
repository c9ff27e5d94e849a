"""Other libraries' attacks behind one signature, each with the settings that make them equal.

An adapter takes a ``Case`` and returns one image per row of it, in order.  It builds the library's
objects itself, as its users do, so that what a library needs for that counts.  Libraries are
imported inside: none of them has to be installed.
"""

from collections.abc import Callable
from typing import Any

import torch
from case import Case
from torch import Tensor, nn

Adapter = Callable[[Case], Tensor]

PEERS: dict[str, dict[str, Adapter]] = {}
"""Attack, library, adapter."""

PGD_STEPS = 20
APGD_STEPS = 100
DEEPFOOL_STEPS = 50
OVERSHOOT = 0.02
DDN_STEPS = 100
SEARCHES, CW_RATE, CW_CONST = 9, 0.01, 1e-3
"""C&W: the number of constants tried, the learning rate of Adam, and the first constant."""


def peer(attack: str, library: str) -> Callable[[Adapter], Adapter]:
    """Register an adapter."""

    def add(adapter: Adapter) -> Adapter:
        PEERS.setdefault(attack, {})[library] = adapter
        return adapter

    return add


@peer("pgd", "torchattacks")
def torchattacks_pgd(case: Case) -> Tensor:
    """20 steps of eps/4 (default: 10), uniform start; returns the last iterate, unseen."""
    import torchattacks

    attack = torchattacks.PGD(
        case.model, eps=case.eps, alpha=case.step, steps=PGD_STEPS, random_start=True
    )
    return case.batched(attack)


@peer("pgd", "foolbox")
def foolbox_pgd(case: Case) -> Tensor:
    """20 steps of eps/4 (default: 40 of eps/30), uniform start; returns the last iterate."""
    import foolbox

    attack = foolbox.attacks.LinfPGD(
        rel_stepsize=None, abs_stepsize=case.step, steps=PGD_STEPS, random_start=True
    )
    model = _foolbox_model(case)
    return case.batched(lambda x, y: attack(model, x, y, epsilons=case.eps)[1])


@peer("pgd", "art")
def art_pgd(case: Case) -> Tensor:
    """20 steps of eps/4 (default: 100 of 0.1), one uniform start (default: none)."""
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        _art_classifier(case),
        norm="inf",
        eps=case.eps,
        eps_step=case.step,
        max_iter=PGD_STEPS,
        num_random_init=1,
        batch_size=case.batch_size,
        verbose=False,
    )
    return _through_numpy(case, attack)


@peer("pgd", "adv-lib")
def advlib_pgd(case: Case) -> Tensor:
    """20 steps of eps/4 (default: 40 of eps/30), uniform start; any iterate counts but the last.

    The iterate that step 20 makes is never looked at, so this is one evaluation less than ours.
    """
    from adv_lib.attacks import pgd_linf

    return case.batched(
        lambda x, y: pgd_linf(
            case.model,
            x,
            y,
            case.eps,
            steps=PGD_STEPS,
            random_init=True,
            absolute_step_size=case.step,
        ),
    )


@peer("apgd", "torchattacks")
def torchattacks_apgd(case: Case) -> Tensor:
    """100 steps (default: 10) on the cross-entropy, one start."""
    import torchattacks

    attack = torchattacks.APGD(
        case.model,
        norm="Linf",
        eps=case.eps,
        steps=APGD_STEPS,
        n_restarts=1,
        seed=case.seed,
        loss="ce",
    )
    return case.batched(attack)


@peer("apgd", "art")
def art_apgd(case: Case) -> Tensor:
    """100 steps on the cross-entropy, first step 2 eps (default: 0.1), one start (default: 5)."""
    from art.attacks.evasion import AutoProjectedGradientDescent

    attack = AutoProjectedGradientDescent(
        _art_classifier(case),
        norm="inf",
        eps=case.eps,
        eps_step=2 * case.eps,
        max_iter=APGD_STEPS,
        nb_random_init=1,
        batch_size=case.batch_size,
        loss_type="cross_entropy",
        verbose=False,
    )
    return _through_numpy(case, attack)


@peer("apgd", "adv-lib")
def advlib_apgd(case: Case) -> Tensor:
    """100 steps on the cross-entropy (default: the logit ratio), one start."""
    from adv_lib.attacks import apgd

    return case.batched(
        lambda x, y: apgd(
            case.model,
            x,
            y,
            case.eps,
            float("inf"),
            n_iter=APGD_STEPS,
            n_restarts=1,
            loss_function="ce",
        ),
    )


@peer("apgd", "pyautoattack")
def pyautoattack_apgd(case: Case) -> Tensor:
    """The first of the ensemble's attacks alone: 100 steps, one start (default: 5)."""
    ensemble = _ensemble(case, attacks=["apgd-ce"], version="custom")
    ensemble.apgd.n_restarts = 1
    return _evaluated(case, ensemble)


@peer("aa", "pyautoattack")
def pyautoattack_standard(case: Case) -> Tensor:
    """The official standard version, on targets that exist where there are under ten classes."""
    ensemble = _ensemble(case, version="standard")
    targets = min(9, case.classes - 1)
    ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = targets
    return _evaluated(case, ensemble)


@peer("deepfool", "foolbox")
def foolbox_deepfool(case: Case) -> Tensor:
    """50 steps, overshoot 0.02, the ten most likely classes: its defaults."""
    import foolbox

    attack = foolbox.attacks.L2DeepFoolAttack(
        steps=DEEPFOOL_STEPS, candidates=10, overshoot=OVERSHOOT
    )
    return _foolbox_minimal(case, attack)


@peer("deepfool", "adv-lib")
def advlib_deepfool(case: Case) -> Tensor:
    """50 steps (default: 100), overshoot 0.02; it tries all classes."""
    from adv_lib.attacks import df

    return case.batched(
        lambda x, y: df(case.model, x, y, steps=DEEPFOOL_STEPS, overshoot=OVERSHOOT, norm=2),
    )


@peer("cw", "foolbox")
def foolbox_cw(case: Case) -> Tensor:
    """9 constants from 0.001, Adam at 0.01; it stops early when the batch's sum stalls.

    Where it finds nothing it returns a black image, wrong as often as not: taken out again.
    """
    import foolbox

    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=SEARCHES,
        steps=case.cw_steps,
        stepsize=CW_RATE,
        confidence=0,
        initial_const=CW_CONST,
        abort_early=True,
    )
    crafted = _foolbox_minimal(case, attack)
    return torch.where(crafted.flatten(1).any(1).view(-1, 1, 1, 1), crafted, case.x)


@peer("cw", "adv-lib")
def advlib_cw(case: Case) -> Tensor:
    """9 constants from 0.001, Adam at 0.01; it stops early when every example stalls."""
    from adv_lib.attacks import carlini_wagner_l2

    return case.batched(
        lambda x, y: carlini_wagner_l2(
            case.model,
            x,
            y,
            confidence=0,
            learning_rate=CW_RATE,
            initial_const=CW_CONST,
            binary_search_steps=SEARCHES,
            max_iterations=case.cw_steps,
            abort_early=True,
        ),
    )


@peer("ddn", "foolbox")
def foolbox_ddn(case: Case) -> Tensor:
    """100 steps, first norm 1, factor 0.05: its defaults."""
    import foolbox

    attack = foolbox.attacks.DDNAttack(init_epsilon=1.0, steps=DDN_STEPS, gamma=0.05)
    return _foolbox_minimal(case, attack)


@peer("ddn", "adv-lib")
def advlib_ddn(case: Case) -> Tensor:
    """100 steps, first norm 1, factor 0.05; no rounding to 256 levels (default: rounded)."""
    from adv_lib.attacks import ddn

    return case.batched(
        lambda x, y: ddn(case.model, x, y, steps=DDN_STEPS, init_norm=1.0, levels=None)
    )


def _foolbox_model(case: Case) -> Any:
    import foolbox

    return foolbox.PyTorchModel(case.model, bounds=(0, 1), device=case.x.device)


def _foolbox_minimal(case: Case, attack: Any) -> Tensor:
    model = _foolbox_model(case)
    return case.batched(lambda x, y: attack(model, x, y, epsilons=None)[1])


def _art_classifier(case: Case) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        case.model,
        loss=nn.CrossEntropyLoss(),
        optimizer=None,
        input_shape=tuple(case.x.shape[1:]),
        nb_classes=case.classes,
        clip_values=(0, 1),
        device_type="cpu" if case.x.device.type == "cpu" else "gpu",
    )


def _through_numpy(case: Case, attack: Any) -> Tensor:
    crafted = attack.generate(x=case.x.cpu().numpy(), y=case.y.cpu().numpy())
    return torch.from_numpy(crafted).to(case.x)


def _ensemble(case: Case, **what: Any) -> Any:
    import pyautoattack

    ensemble = pyautoattack.AutoAttack(
        case.model, norm="Linf", eps=case.eps, seed=case.seed, device=case.x.device, **what
    )
    ensemble.verbose = False
    return ensemble


def _evaluated(case: Case, ensemble: Any) -> Tensor:
    crafted: Tensor
    crafted, _ = ensemble.run_standard_evaluation(case.x, case.y, batch_size=case.batch_size)
    return crafted
