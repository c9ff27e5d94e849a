"""The model that attacks work on: the evaluated one, or a faster one that answers almost the same.

An attack only proposes images, so the model that it works on may be rounded (bfloat16) or rewritten
(BatchNorm folded into the convolutions before it).  The verifier decides with the model as it is,
and examples that stood by a small margin are attacked again on the model as it is.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental import optimization

from robustbench_cli.attacks import IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core.errors import in_one_line
from robustbench_cli.core.losses import margin, target_or_rest, wide
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.evaluation.verifier import device_of
from robustbench_cli.models import has_bf16
from robustbench_cli.models.keyed_draws import keyed_draws
from robustbench_cli.models.layout import laid_out, restore_classes
from robustbench_cli.models.rejecting import RejectingModel, rejection_of, with_network
from robustbench_cli.models.taps import EMBEDDING, tapped

SearchPrecision = Literal["exact", "auto"]

COMPARED_IMAGES = 64
"""Images on which a faster model is compared with the original."""
GRADIENT_TOLERANCE = 1e-2
"""The largest relative L2 error of a folded model's gradients.  It is not smaller because
max-pooling may pick another of two equal pixels."""
LOGIT_TOLERANCE = 1e-3
"""The largest error of a folded model's logits, as a fraction of their standard deviation."""
MAX_BF16_SHIFT = 0.2
"""The largest change of a logit by bfloat16.  The softmax works in units of one: on a net with
logits so large that rounding shows there, attacks take other paths and end too far from those on
the original for a second attempt to correct them."""


@dataclass(frozen=True, kw_only=True)
class SearchModel:
    """A model to attack, and how the attack loop should use it."""

    model: Callable[[Tensor], Tensor]
    """Images (B, C, H, W) in [0, 1] to logits (B, K)."""
    rejection: RejectingModel | None = None
    """The model whose logits these are, if it rejects: it merges the last one into the others."""
    check_every: int = 1
    """Passes between two checks for finished rows: on a GPU, a check waits for the device."""
    shrink_below: float = 1.0
    """The batch is cut down once no more than this fraction of its rows is still under attack."""
    uncertain_margin: float = 0.0
    """Examples that stand by a logit margin smaller than this are attacked again in float32."""
    about: str = "float32"
    """The precision, for the record."""
    faithful: bool = True
    """True if its predictions are those of the evaluated model, but for rounding.  Otherwise that
    model classifies every image that an attack proposes."""
    passes: int = 1
    """The passes of the evaluated model in one of its passes."""
    differentiable: bool = True
    """False if no gradient passes through it: then only searches that need none can be run."""

    def observe(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor
    ) -> tuple[Observation, int, int]:
        """Observe the model at ``state["x"]``, averaged over ``attack.draws`` passes.

        Args:
            step_index: the number of passes that each example has had before (B, int64).

        Returns:
            The observation, and the forward and backward passes that it took per example.
        """
        with keyed_draws(self.model, task.noise.fork("search").at(step_index)):
            observations = [
                self._observe_once(attack, state, task, step_index) for _ in range(attack.draws)
            ]
        backwards = int(attack.access == "gradient")
        if attack.access == "jacobian":
            backwards = observations[0].grad.shape[1]
        draws = attack.draws * self.passes
        cost = draws * (1 + attack.probes), draws * backwards
        observation = observations[0] if len(observations) == 1 else _mean(observations)
        if attack.black_box:
            return observation._replace(loss=margin(observation.logits, task.y)), *cost
        # So that no attack need know of masks: the gradient is zero where nothing may change.
        return observation._replace(grad=task.threat.allowed(observation.grad)), *cost

    def _observe_once(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor
    ) -> Observation:
        x = state["x"].detach()
        none = x.new_full((len(x),), torch.nan)
        probes = self._classify(state["probes"], task, step_index) if attack.probes else none
        if attack.black_box:
            with torch.no_grad():
                logits = wide(self.model(x))
            if task.target is not None:
                logits = target_or_rest(logits, task.target)
            elif self.rejection:
                logits = self.rejection.ranked(logits, task.y)
            return Observation(logits, none, none, probes, none, step_index)
        x.requires_grad_()
        with torch.enable_grad():
            out = self._output(attack.seen(x, state, task, step_index), attack.taps)
            logits = self._shown(out.logits, task)
            features = none if out.features is None else out.features.detach()
            if attack.access == "jacobian":
                sums = logits.gather(1, attack.wanted(task)).sum(0)
                last = len(sums) - 1
                rows = [
                    torch.autograd.grad(one, x, retain_graph=k < last)[0]
                    for k, one in enumerate(sums)
                ]
                jacobian = torch.stack(rows, 1)
                return Observation(logits.detach(), none, jacobian, probes, features, step_index)
            every = None if task.target is None else wide(out.logits)
            loss = attack.loss(Output(logits, out.features, every), state, task, step_index)
            # The sum, never the mean: a mean divides small gradients towards zero.
            (grad,) = torch.autograd.grad(loss.sum(), x)
        return Observation(logits.detach(), loss.detach(), grad, probes, features, step_index)

    def _classify(self, probes: Tensor, task: Task, step_index: Tensor) -> Tensor:
        """Logits (B, Q, K) of probes (B, Q, C, H, W)."""
        rows = torch.arange(len(probes), device=probes.device).repeat_interleave(probes.shape[1])
        noise = task.noise.fork("probes").at(step_index).only(rows)
        with torch.no_grad(), keyed_draws(self.model, noise):
            shown = self._shown(self.model(probes.flatten(0, 1)), task, rows)
        return shown.view(*probes.shape[:2], -1)

    def _shown(self, logits: Tensor, task: Task, rows: Tensor | slice = slice(None)) -> Tensor:
        """The logits (B, K) that attacks see: an error among them is not rejected.

        With a target they are two, and an error is the target.
        """
        if task.target is not None:
            return target_or_rest(logits, task.target[rows])
        return self.rejection.merged(logits, task.y[rows]) if self.rejection else wide(logits)

    def _output(self, x: Tensor, taps: bool) -> Output:
        if not taps:
            return Output(self.model(x), None)
        with tapped(self.model, [EMBEDDING]) as found:
            logits = self.model(x)
        return Output(logits, found[EMBEDDING])


def _mean(observations: list[Observation]) -> Observation:
    *averaged, step_index = zip(*observations, strict=True)
    return Observation._make([*(torch.stack(part).mean(0) for part in averaged), step_index[0]])


def exact_search_model(model: nn.Module, *, differentiable: bool = True) -> SearchModel:
    """Return the model itself, in float32, as a search model."""
    rejection = rejection_of(model)
    made = {"model": model, "rejection": rejection, "differentiable": differentiable}
    return _for_device(device_of(model), **made)


def fastest_search_model(
    model: nn.Module, x: Tensor, *, random: bool = False
) -> tuple[SearchModel, list[str]]:
    """Return the fastest model whose answers are close to the original's.

    Args:
        x: images (B, C, H, W) in [0, 1] on which the two are compared.
        random: whether the model is randomised: no two of its answers can be compared, so it is
            used as it is.

    Returns:
        The search model, and notes on what could not be made faster and why.
    """
    device, answers = device_of(model), _answers(model, x)
    fast, notes = _folded(model, x, answers, random)
    shift = 0.0 if fast is model else _largest_shift(answers, fast, x)
    kind, folded = "float32", ", BatchNorm folded" * (fast is not model)
    if has_bf16(device) and not random:
        narrow = _Narrow(fast, device).eval()
        try:
            bf16_shift = _largest_shift(answers, narrow, x)
            _top_logit_gradient(narrow, x[:2])  # a backward pass of the user's own may not do it
            why = "" if bf16_shift <= MAX_BF16_SHIFT else f"it moves logits by {bf16_shift:.2g}"
        except Exception as error:  # this runs the user's code: anything can come out of it
            why = in_one_line(error)
        if why:
            notes = [*notes, f"bfloat16 was not used: {why}"]
        else:
            fast, shift, kind = narrow, bf16_shift, "bfloat16"
    made = {"model": fast, "rejection": rejection_of(model), "about": kind + folded}
    return _for_device(device, uncertain_margin=10 * shift, **made), notes


def _for_device(device: torch.device, **rest: Any) -> SearchModel:
    """A search model with the settings that are fast on the device."""
    if device.type == "cuda":
        return SearchModel(check_every=4, shrink_below=0.5, **rest)
    return SearchModel(**rest)


class _Narrow(nn.Module):
    """A model whose forward pass runs in bfloat16."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.device = device

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()


def _folded(
    model: nn.Module, x: Tensor, answers: Tensor, random: bool
) -> tuple[nn.Module, list[str]]:
    """The model with every BatchNorm that directly follows a convolution folded into it.

    Args:
        answers: the original's logits, as ``_answers`` returns them.

    Returns:
        The folded model, or the model itself with a note that says why.
    """
    folded: nn.Module = model
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        why = "the model has forward hooks"
    elif not _foldable(model):
        return model, []
    elif random:
        why = "the model is randomised"  # a trace keeps one branch of many
    else:
        try:
            folded = laid_out(with_network(model, _fused), device_of(model)).requires_grad_(False)
            if _foldable(folded) == _foldable(model):  # none of them follows a convolution
                return model, []
            why = _difference(model, folded, x, answers)
        except Exception as error:  # this runs the user's code: anything can come out of it
            why = in_one_line(error)
    return (model, [f"BatchNorm was not folded: {why}"]) if why else (folded, [])


def _foldable(model: nn.Module) -> int:
    """The number of BatchNorm layers that normalise with running statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return sum(norm.running_mean is not None for norm in norms)


def _fused(model: nn.Module) -> nn.Module:
    return optimization.fuse(restore_classes(copy.deepcopy(model)).eval())


def _difference(model: nn.Module, folded: nn.Module, x: Tensor, answers: Tensor) -> str:
    """The reason not to use a folded model; empty if there is none."""
    if not _largest_shift(answers, folded, x) <= LOGIT_TOLERANCE * float(answers.std()):
        return "the folded model answers differently"
    original, other = (_top_logit_gradient(each, x) for each in (model, folded))
    if not float((original - other).norm()) <= GRADIENT_TOLERANCE * float(original.norm()):
        # A backward pass of the user's own (a straight-through estimator) is lost in tracing.
        return "the folded model has other gradients"
    return ""


def _top_logit_gradient(model: nn.Module, x: Tensor) -> Tensor:
    """The gradient (B, C, H, W) of each image's largest logit."""

    def part_gradient(part: Tensor) -> Tensor:
        leaf = part.clone().requires_grad_()
        with torch.enable_grad():
            top = model(leaf).amax(1).sum()
            (grad,) = torch.autograd.grad(top, leaf, allow_unused=True)
        return torch.zeros_like(part) if grad is None else grad

    return in_parts(part_gradient, x)


def _largest_shift(answers: Tensor, other: nn.Module, x: Tensor) -> float:
    """The largest difference between another model's logits and the original's ``answers``."""
    return float((answers - _answers(other, x)).abs().max())


def _answers(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (3 B, K) on the images, their negatives and blends of two of them.

    Clean images alone would not do: attacks go where images are not clean, and a difference that
    shows only there would mislead them.
    """
    with torch.no_grad():
        return in_parts(model, torch.cat([x, 1 - x, x.roll(1, 0) / 2 + x / 2]))
