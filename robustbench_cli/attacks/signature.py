"""An attack that stays away from what ordinary attacks leave in a network's features.

Carlini (2020), "A partial break of the honeypots defense to catch adversarial attacks",
https://arxiv.org/abs/2009.10975.
"""

from dataclasses import dataclass

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks._signature import SignatureBase


@ATTACKS.register("signature")
@dataclass(frozen=True, kw_only=True)
class Signature(SignatureBase):
    """Estimate the features that PGD leads to, then fool the model far from them.

    Detectors such as ``trapdoor`` flag features that point where a shortcut of the network leads.
    Plain PGD finds the shortcut, so the signature is no secret: first the image itself, then other
    images of the data are led by PGD to the same wrong class t, and their mean features are the
    estimate s.  Then a new start ascends min(z_t - max z, c r) / r - w cos(features, s), with r the
    range of the clean logits; the weight w falls with each restart, and each restart attacks what
    the ones before it left.  Of the errors on the way the one with the least cosine counts.

    ``way=orthogonal`` needs no weight (Bryniarski et al., 2021, arXiv:2106.15023):
    the gradient of the logits, freed of its part along that of the cosine, until the model is
    fooled, then away from the signature without a change of the logits to first order.

    The paper estimates one signature per class from many images; here each image has an estimate of
    its own, so that no verdict depends on which images are attacked together.
    """
