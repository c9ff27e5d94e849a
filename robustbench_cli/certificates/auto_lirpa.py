"""Bounds by auto_LiRPA (Xu et al., 2020), https://arxiv.org/abs/2002.12920.

The package of the authors of CROWN, https://github.com/Verified-Intelligence/auto_LiRPA.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robustbench_cli.bounds import InputBall, Interval
from robustbench_cli.bounds.margins import margin_rows
from robustbench_cli.certificates import CERTIFICATES, ProofSubject
from robustbench_cli.certificates._bounding import BoundCertificate, MarginBounds
from robustbench_cli.core.errors import UserError, in_one_line

_SLACK = 1e-5
"""What is taken off for float32, in which auto_LiRPA computes, relative to the largest logit; it is
a rule of thumb and no proof."""
_AT_ONCE = 4


@CERTIFICATES.register("auto-lirpa")
@dataclass(frozen=True, kw_only=True)
class AutoLiRPA(BoundCertificate):
    """What an installed auto_LiRPA proves; it knows more layers and tighter bounds than advbench.

    Under Linf only: its interval bounds under L2 (version 0.7.1) leave out the scale of a
    normaliser inside the model, and so prove too much.
    """

    method: Literal["IBP", "CROWN-IBP", "CROWN", "CROWN-Optimized"] = "CROWN"
    """auto_LiRPA's name of the bound; CROWN-Optimized (alpha-CROWN) takes minutes per image."""

    def bounds(self, subject: ProofSubject) -> MarginBounds:
        if importlib.util.find_spec("auto_LiRPA") is None:
            raise UserError(
                "certificate 'auto-lirpa' needs auto_LiRPA, which PyPI has for old versions of "
                "torch only: pip install --no-deps "
                "git+https://github.com/Verified-Intelligence/auto_LiRPA appdirs graphviz"
            )
        if subject.threat.norm != "Linf":
            raise UserError(
                f"certificate 'auto-lirpa' is for Linf balls, got {subject.threat.norm}: use crown"
            )
        lirpa: Any = importlib.import_module("auto_LiRPA")
        perturbations: Any = importlib.import_module("auto_LiRPA.perturbations")
        x = subject.data.images(slice(1))
        try:
            bounded = lirpa.BoundedModule(
                subject.model, x, device=x.device, bound_opts={"conv_mode": "matrix"}
            )
        except Exception as error:  # whatever its reading of the user's model raises
            raise UserError(
                f"auto_LiRPA knows no bounds for this model ({in_one_line(error)})"
            ) from None

        def margins(ball: InputBall, y: Tensor) -> Tensor:
            pixels, images = ball.interval, ball.x.float()
            box = perturbations.PerturbationLpNorm(
                norm=torch.inf, x_L=pixels.low.float(), x_U=pixels.high.float()
            )
            rows = margin_rows(y, subject.classes, images)
            x = lirpa.BoundedTensor(images, box)
            low, _ = bounded.compute_bounds(x=(x,), method=self.method, C=rows, bound_upper=False)
            size = bounded(images).abs().amax(1, keepdim=True)
            found: Tensor = (low - _SLACK * size).detach().double()
            return found

        def answers(x: Tensor) -> Interval:
            logits = bounded(x)
            slack = _SLACK * logits.abs().amax(1, keepdim=True)
            return Interval(logits - slack, logits + slack)

        return MarginBounds(margins=margins, answers=answers, at_once=_AT_ONCE)
