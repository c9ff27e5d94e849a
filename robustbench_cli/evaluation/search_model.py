"""The model that attacks work on: the evaluated one, or a faster one that answers almost the same.

An attack only proposes images, so the model that it works on may be rounded (bfloat16) or rewritten
(BatchNorm folded into the convolutions before it).  The verifier decides with the model as it is,
and examples that stood by a small margin are attacked again on the model as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustbench_cli.attacks import IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core.free_looks import surely_some
from robustbench_cli.core.losses import margin, target_or_rest, wide
from robustbench_cli.evaluation.verifier import device_of
from robustbench_cli.models.keyed_draws import drawing_modules, keyed_draws
from robustbench_cli.models.rejecting import RejectingModel, rejection_of
from robustbench_cli.models.taps import EMBEDDING, tapped

SearchPrecision = Literal["exact", "auto"]


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

    @cached_property
    def draws_by_example(self) -> bool:
        """True if the model draws random numbers for each image in each of its passes."""
        return bool(drawing_modules(self.model))

    def observe(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor
    ) -> tuple[Observation, int, int | Tensor]:
        """Observe the model at ``state["x"]``, averaged over ``attack.draws`` passes.

        Args:
            step_index: the number of passes that each example has had before (B, int64).

        Returns:
            The observation, and the forward and backward passes that it took per example, the
            latter as (B, int64) where examples differ.
        """
        # Where constant shapes are fast, to observe two parts of a batch would not be.
        whole = self.draws_by_example or self.shrink_below < 1
        spared = None if whole else attack.spared(state)
        if spared is None or not surely_some(spared):
            return self.observe_alike(attack, state, task, step_index)
        glanced, looked = spared.nonzero().squeeze(1), (~spared).nonzero().squeeze(1)
        found, forwards = self._glance(attack, state, task, step_index, glanced), self.passes
        if not len(looked):
            return found, forwards, 0
        part = {name: values[looked] for name, values in state.items()}
        rest, forwards, backwards = self.observe_alike(
            attack, part, task.only(looked), step_index[looked]
        )
        order = torch.cat([glanced, looked]).argsort()
        both = [torch.cat(pair)[order] for pair in zip(found, rest, strict=True)]
        return Observation._make(both), forwards, ~spared * backwards

    def observe_alike(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor
    ) -> tuple[Observation, int, int]:
        """Observe as ``observe`` does, and spare no row its gradient."""
        keyed = task.noise.fork("search").at(step_index) if self.draws_by_example else None
        with keyed_draws(self.model, keyed):
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

    def _glance(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor, rows: Tensor
    ) -> Observation:
        """Observe these rows (R, int64) without a gradient: it is zero, and the loss NaN."""
        x, part = state["x"][rows], task.only(rows)
        none, step_index = x.new_full((len(x),), torch.nan), step_index[rows]
        own = {name: values[rows] for name, values in state.items()}
        with torch.no_grad():
            logits = self._shown(self.model(attack.seen(x, own, part, step_index)), part)
        classes = attack.wanted(part).shape[1:] if attack.access == "jacobian" else ()
        grad = x.new_zeros(len(x), *classes, *x.shape[1:])
        return Observation(logits, none, grad, none, none, step_index)

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
    return for_device(device_of(model), **made)


def for_device(device: torch.device, **rest: Any) -> SearchModel:
    """A search model with the settings that are fast on the device."""
    if device.type == "cuda":
        return SearchModel(check_every=4, shrink_below=0.5, **rest)
    return SearchModel(**rest)
