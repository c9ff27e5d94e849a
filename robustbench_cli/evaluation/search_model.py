"""What a search looks through: the model itself, or a faster one that answers almost the same.

A search proposes only, so its model may be rounded (bfloat16) or rewritten (BatchNorm folded into
the convolutions before it); the judge has the last word, and what was close is tried again with
the model itself.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental import optimization

from robustbench_cli.attacks import IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core.losses import margin, wide
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.evaluation.verifier import device_of
from robustbench_cli.models.layout import laid_out, restore_classes
from robustbench_cli.models.taps import EMBEDDING, tapped

SearchPrecision = Literal["exact", "auto"]

COMPARED_IMAGES = 64
"""Images on which a faster model is compared with the original."""
GRADIENT_TOLERANCE = 1e-2
"""How far its gradients may be off: max-pooling may pick another of two equal pixels."""
LOGIT_TOLERANCE = 1e-3
"""How far a folded model's logits may be off, relative to their own spread."""
MAX_BF16_SHIFT = 0.2
"""How far bfloat16 may move a logit.  The softmax works in units of one: on a net so sure of itself
that rounding shows there, searches part ways, and end too far apart for a second look to help."""


@dataclass(frozen=True, kw_only=True)
class SearchModel:
    """A model as a search sees it."""

    model: Callable[[Tensor], Tensor]
    patience: int = 1
    """Looks between two checks of who is done: a check makes a GPU wait."""
    compact: float = 1.0
    """The batch is cut down when no more than this share of it is still under attack."""
    doubt: float = 0.0
    """Logit margins below this are too small to trust: float32 must look again."""
    about: str = "float32"
    """What it runs in, for the record."""

    def observe(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor
    ) -> tuple[Observation, int, int]:
        """One look at every row, averaged over ``attack.draws`` passes, and its price.

        Returns:
            What was seen, and the forward and backward passes that it took per example.
        """
        observations = [self._once(attack, state, task, step_index) for _ in range(attack.draws)]
        backwards = int(attack.access == "gradient")
        if attack.access == "jacobian":
            backwards = observations[0].grad.shape[1]
        price = attack.draws * (1 + attack.probes), attack.draws * backwards
        observation = observations[0] if len(observations) == 1 else _mean(observations)
        if attack.access == "logits":
            return observation._replace(loss=margin(observation.logits, task.y)), *price
        # No attack need know of masks: in directions that are closed the loss looks flat.
        return observation._replace(grad=task.threat.allowed(observation.grad)), *price

    def _once(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor
    ) -> Observation:
        x = state["x"].detach()
        none = x.new_full((len(x),), torch.nan)
        seen = self._classified(state["probes"]) if attack.probes else none
        if attack.access == "logits":
            with torch.no_grad():
                return Observation(wide(self.model(x)), none, none, seen, none, step_index)
        x.requires_grad_()
        with torch.enable_grad():
            out = self._output(attack.seen(x, state, task, step_index), attack.taps)
            logits = wide(out.logits)
            features = none if out.features is None else out.features.detach()
            if attack.access == "jacobian":
                each = logits.gather(1, attack.wanted(task)).sum(0)
                last = len(each) - 1
                rows = [
                    torch.autograd.grad(one, x, retain_graph=k < last)[0]
                    for k, one in enumerate(each)
                ]
                return Observation(
                    logits.detach(), none, torch.stack(rows, 1), seen, features, step_index
                )
            loss = attack.loss(Output(logits, out.features), state, task, step_index)
            # The sum, never the mean: a mean divides small gradients towards zero.
            (grad,) = torch.autograd.grad(loss.sum(), x)
        return Observation(logits.detach(), loss.detach(), grad, seen, features, step_index)

    def _classified(self, probes: Tensor) -> Tensor:
        with torch.no_grad():
            logits = wide(self.model(probes.flatten(0, 1)))
        return logits.view(*probes.shape[:2], -1)

    def _output(self, x: Tensor, taps: bool) -> Output:
        if not taps:
            return Output(self.model(x), None)
        with tapped(self.model, [EMBEDDING]) as found:
            logits = self.model(x)
        return Output(logits, found[EMBEDDING])


def _mean(observations: list[Observation]) -> Observation:
    *seen, step_index = zip(*observations, strict=True)
    return Observation._make([*(torch.stack(part).mean(0) for part in seen), step_index[0]])


class Meter:
    """A model that counts the images pushed through it, forward and backward."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.forwards = 0
        self.backwards = 0
        self._model = model

    def __call__(self, x: Tensor) -> Tensor:
        logits = self._model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count(len(x)))  # type: ignore[no-untyped-call]
        return logits

    def _count(self, images: int) -> None:
        self.backwards += images


def exact_search_model(model: nn.Module) -> SearchModel:
    """The model itself, in float32."""
    return _on(device_of(model), model=model)


def fastest_search_model(
    model: nn.Module, x: Tensor, *, random: bool = False
) -> tuple[SearchModel, list[str]]:
    """The fastest model that can be vouched for, and notes on what was given up.

    Args:
        x: images (B, C, H, W) on which the fast model is compared with the original.
        random: whether the model is randomised: no two of its answers can be compared, so it is
            vouched for as it is only.
    """
    where, answers = device_of(model), _shown(model, x)
    fast, notes = _folded(model, x, answers, random)
    apart = 0.0 if fast is model else _apart(answers, fast, x)
    kind, folded = "float32", ", BatchNorm folded" * (fast is not model)
    if _has_bf16(where) and not random:
        narrow = _in_bf16(fast, where)
        moved = _apart(answers, narrow, x)
        if moved <= MAX_BF16_SHIFT:
            fast, apart, kind = narrow, moved, "bfloat16"
        else:
            notes = [*notes, f"bfloat16 was not used: it moves logits by up to {moved:.2g}"]
    return _on(where, model=fast, doubt=10 * apart, about=kind + folded), notes


def _on(where: torch.device, **rest: Any) -> SearchModel:
    if where.type == "cuda":
        return SearchModel(patience=4, compact=0.5, **rest)
    return SearchModel(**rest)


def _has_bf16(where: torch.device) -> bool:
    """Whether bfloat16 is fast here, not merely possible."""
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public name for it, and older ones none at all.
    known: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return known()


class _Narrow(nn.Module):
    """A model whose forward pass runs in bfloat16."""

    def __init__(self, model: nn.Module, where: torch.device) -> None:
        super().__init__()
        self.model = model
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.where.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()


def _in_bf16(model: nn.Module, where: torch.device) -> nn.Module:
    return _Narrow(model, where).eval()


def _folded(
    model: nn.Module, x: Tensor, answers: Tensor, random: bool
) -> tuple[nn.Module, list[str]]:
    """The model with every BatchNorm that directly follows a convolution folded into it."""
    folded: nn.Module = model
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        why = "the model has forward hooks"
    elif not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return model, []
    elif random:
        why = "the model is randomised"  # a trace keeps one branch of many
    else:
        try:
            folded = optimization.fuse(restore_classes(copy.deepcopy(model)).eval())
            folded = laid_out(folded, device_of(model)).requires_grad_(False)
            why = _unlike(model, folded, x, answers)
        except Exception as error:  # this runs the user's code: anything can come out of it
            why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return (model, [f"BatchNorm was not folded: {why}"]) if why else (folded, [])


def _unlike(model: nn.Module, folded: nn.Module, x: Tensor, answers: Tensor) -> str:
    """What speaks against a folded model; nothing, if nothing does."""
    near = _apart(answers, folded, x) <= LOGIT_TOLERANCE * float(answers.std())
    if not isinstance(folded, fx.GraphModule) or not near:
        return "the folded model answers differently"
    mine, theirs = (_slope(each, x) for each in (model, folded))
    if not float((mine - theirs).norm()) <= GRADIENT_TOLERANCE * float(mine.norm()):
        # A backward pass of the user's own (a straight-through estimator) is lost in tracing.
        return "the folded model has other gradients"
    return ""


def _slope(model: nn.Module, x: Tensor) -> Tensor:
    """The gradient of the images' largest logits."""

    def of(part: Tensor) -> Tensor:
        leaf = part.clone().requires_grad_()
        with torch.enable_grad():
            top = model(leaf).amax(1).sum()
            (grad,) = torch.autograd.grad(top, leaf, allow_unused=True)
        return torch.zeros_like(part) if grad is None else grad

    return in_parts(of, x)


def _apart(answers: Tensor, other: nn.Module, x: Tensor) -> float:
    """How much another model's logits differ from the original's at most."""
    return float((answers - _shown(other, x)).abs().max())


def _shown(model: nn.Module, x: Tensor) -> Tensor:
    """Logits on the images, their negatives and blends of them.

    A difference that hides on clean images would mislead the search exactly where it goes.
    """
    with torch.no_grad():
        return in_parts(model, torch.cat([x, 1 - x, x.roll(1, 0) / 2 + x / 2]))
