"""Gaps in the gradient inside a model: where what varies has no gradient, or a useless one.

At every site of a model, changes of the image change some numbers.  Where the gradient of these
does not say so while it does at the site before, the part between the two sites is the one that
stops the gradient, or gives a wrong one (obfuscated gradients; Athalye et al., 2018,
https://arxiv.org/abs/1802.00420).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.models.bpda import swap_gradient
from robustbench_cli.views import ViewSubject
from robustbench_cli.views._gradients import DIRECTIONS, MOST_ZERO, REACH
from robustbench_cli.views._interception import Call, GradientRule, intercepted
from robustbench_cli.views._sites import ENTRANCE, Site, visited

_LEAST_AGREEMENT = 0.75
"""The correlation of differences and gradients below which a site has lost the gradient."""


class Gap(NamedTuple):
    """Two sites, before and behind the part of a model that stops the gradient."""

    source: Site
    target: Site


class Bridged(nn.Module):
    """A model whose gradient passes over gaps by stand-ins; it computes what it computes anyway."""

    def __init__(
        self,
        model: nn.Module,
        rules: Mapping[Call, GradientRule] | None,
        bridges: Mapping[Gap, nn.Module],
    ) -> None:
        """Make it.

        Args:
            rules: the gradients that functions get while it runs; None: their own.
            bridges: for each gap, from the numbers at its source (B, ...) to those at its target.
        """
        super().__init__()
        self.model, self.rules = model, rules
        self.gaps = tuple(bridges)
        self.bridges = nn.ModuleList(bridges.values())

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return self.model(x)  # type: ignore[no-any-return]
        values: dict[Site, Tensor] = {}

        def bridged(site: Site, value: Tensor) -> Tensor | None:
            new = None
            for gap, bridge in zip(self.gaps, self.bridges, strict=True):
                if gap.target == site and gap.source in values:
                    smooth = bridge(values[gap.source])
                    new = swap_gradient(value.detach(), smooth.to(value.dtype))
            if any(gap.source == site for gap in self.gaps):
                values[site] = (value if new is None else new).clone()
            return new

        with torch.enable_grad(), visited(self.model, len(x), bridged), _running(self.rules):
            return self.model(x)  # type: ignore[no-any-return]


class Gaps(NamedTuple):
    """The gaps of a model, in order."""

    found: tuple[Gap, ...]
    complete: bool
    """True if there are no more behind them."""


def find_gaps(
    model: nn.Module, rules: Mapping[Call, GradientRule] | None, subject: ViewSubject, most: int
) -> Gaps:
    """Return the first ``most`` gaps of a model.

    Behind each gap the gradient is taken with respect to what stands there, and compared with how
    that changes; so it does not matter what will carry the gradient over it.

    Args:
        rules: the gradients that functions get while it runs; None: their own.
    """
    gaps: list[Gap] = []
    while (gap := _next(model, rules, gaps, subject)) is not None:
        if len(gaps) == most:
            return Gaps(tuple(gaps), False)
        gaps.append(gap)
    return Gaps(tuple(gaps), True)


def _running(rules: Mapping[Call, GradientRule] | None) -> AbstractContextManager[None]:
    """The context in which a model runs whose functions have the gradients of ``rules``."""
    return nullcontext() if rules is None else intercepted(rules)


def _next(
    model: nn.Module,
    rules: Mapping[Call, GradientRule] | None,
    gaps: Sequence[Gap],
    subject: ViewSubject,
) -> Gap | None:
    """Return the first gap behind ``gaps``; None if there is none."""
    noise = subject.noise.fork("gaps")
    start = subject.threat.random_start(subject.x, noise)
    seen: dict[Site, list[Tensor]] = {}
    changes: dict[Site, list[Tensor]] = {}
    entries = {ENTRANCE, *(gap.target for gap in gaps)}
    for number in range(DIRECTIONS):
        direction = subject.threat.steepest(noise.fork(number).normal(start))
        step = REACH * subject.threat.eps * direction
        ends = [
            _observed(model, subject.threat.project(start + side * step, subject.x), entries)
            for side in (1, -1)
        ]
        for site in ends[0].scores.keys() & ends[1].scores.keys():
            seen.setdefault(site, []).append(ends[0].scores[site] - ends[1].scores[site])
        for site in entries & ends[0].values.keys() & ends[1].values.keys():
            changes.setdefault(site, []).append(ends[0].values[site] - ends[1].values[site])
    before = ENTRANCE
    observed = _observed_with_gradients(model, rules, start, entries)
    for site, score in observed.scores.items():
        found = torch.stack(seen[site]) if len(seen.get(site, ())) == DIRECTIONS else None
        if found is None or not bool(found.any()):  # nothing arrives here
            continue
        if site not in entries and not _sound(found, _stated(score, observed, changes)):
            return Gap(before, site)
        before = site
    return None


def pairs(model: nn.Module, gap: Gap, images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return what stands at both sites of a gap (N, ...) for batches of images (B, C, H, W)."""
    found = [_observed(model, part, set(gap)).values for part in images]
    given, wanted = (torch.cat([each[site] for each in found]) for site in gap)
    return given, wanted


class _Observed(NamedTuple):
    """What was seen in one pass."""

    scores: dict[Site, Tensor]
    """At each site, in order, one number for each example (B)."""
    values: dict[Site, Tensor]
    """The numbers (B, ...) at the sites that were asked for."""


def _observed(model: nn.Module, x: Tensor, kept: set[Site]) -> _Observed:
    """Run a model without gradients and look at all sites; keep the numbers at some."""
    seen = _Observed({}, {})

    def look(site: Site, value: Tensor) -> None:
        if site in kept:
            seen.values[site] = value.clone()
        seen.scores[site] = _score(site, value)

    with torch.no_grad(), same_draws(), visited(model, len(x), look):
        model(x)
    return seen


def _observed_with_gradients(
    model: nn.Module, rules: Mapping[Call, GradientRule] | None, x: Tensor, entries: set[Site]
) -> _Observed:
    """Run a model with gradients, which begin anew at ``entries``."""
    seen = _Observed({}, {})

    def look(site: Site, value: Tensor) -> Tensor | None:
        new = None
        if site in entries:
            if site != ENTRANCE:
                new = value = value.detach().clone().requires_grad_()
            seen.values[site] = value
        seen.scores[site] = _score(site, value)
        return new

    leaf = x.clone().requires_grad_()
    with torch.enable_grad(), same_draws(), visited(model, len(x), look), _running(rules):
        model(leaf)
    return seen


def _score(site: Site, value: Tensor) -> Tensor:
    """The product of each example's numbers (B, ...) with random ones that belong to the site."""
    weights = torch.randn(value.shape[1:], generator=stream_generator(*site))
    return (value * weights.to(value)).flatten(1).sum(1)


def _stated(score: Tensor, observed: _Observed, changes: dict[Site, list[Tensor]]) -> Tensor:
    """Return what gradients say of the changes of a score (directions, B)."""
    total = score.new_zeros(DIRECTIONS, len(score))
    if not score.requires_grad:
        return total
    entries = [site for site in changes if site in observed.values]
    sources = [observed.values[site] for site in entries]
    grads = torch.autograd.grad(score.sum(), sources, retain_graph=True, allow_unused=True)
    for site, grad in zip(entries, grads, strict=True):
        if grad is not None:
            moved = [(grad * change).flatten(1).sum(1) for change in changes[site]]
            total = total + torch.stack(moved)
    return total


def _sound(seen: Tensor, stated: Tensor) -> bool:
    """True if gradients say what was seen (directions, B)."""
    seen, stated = seen.double(), stated.double()
    finite = stated.isfinite().all(0) & seen.isfinite().all(0)
    if float((~finite).double().mean()) > MOST_ZERO:
        return False
    size = float(seen.norm() * stated.norm())
    return size > 0 and float((seen * stated).sum()) / size >= _LEAST_AGREEMENT
