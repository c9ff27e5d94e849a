"""Bounds of what a network computes on all images of a ball, for certificates and for training.

``TracedModel`` records a model, ``lowered`` turns it into a ``BoundGraph`` of operations with its
present weights, and ``ibp_margins``, ``crown_ibp_margins``, ``crown_margins`` and
``zonotope_margins`` bound the margins of a class on an ``InputBall``.  Bounds are differentiable in
the weights.

Rounding.  With ``unit=FLOAT32`` and float64 as the graph's precision, the bounds hold for the
logits that the model computes in float32, not only for those of exact arithmetic:

- Let a layer's float32 inputs lie in the interval known of them.  A sum of n products is computed
  in some order, with or without fused products, and each term is rounded at most n times, so the
  result differs from the exact one by at most g(n) = n u / (1 - n u) times the sum of the terms'
  magnitudes, u = 2^-24 (Higham, 2002, Accuracy and Stability of Numerical Algorithms, section 3.1).
  That sum is bounded by |W| max(|l|, |u|) + |b|, and the layer's interval is widened by g(n) times
  it: it holds for the float32 values by induction over the layers.  ReLU and max-pooling do not
  round.  What underflow loses is less than 2^-100.
- In linear bounds each layer is z = W x + b + e with |e| below that error.  It enters a linear
  function of z with weights a by no less than -|a| times it.
- The bounds themselves are computed in float64, u' = 2^-53.  Each sum of m terms in them is wrong
  by at most g'(m) times the same magnitudes, that is by less than m u' / (n u) of the error that
  was allowed for, and m / n is at most the number of entries of an image; g is taken 2^-7 larger,
  which covers 2^22 of them.  Lines through a curve's ends are moved outward by 2^-44 of their
  terms.

That holds for sums of products, as CPUs and matrix products on GPUs compute them.  Winograd
convolutions, which cuDNN may choose, are as accurate in practice, but the inequality above is not
proven for them.
"""

from robustbench_cli.bounds.balls import InputBall as InputBall
from robustbench_cli.bounds.graph import BoundGraph as BoundGraph
from robustbench_cli.bounds.interval import EXACT as EXACT
from robustbench_cli.bounds.interval import FLOAT32 as FLOAT32
from robustbench_cli.bounds.interval import Interval as Interval
from robustbench_cli.bounds.margins import crown_ibp_margins as crown_ibp_margins
from robustbench_cli.bounds.margins import crown_margins as crown_margins
from robustbench_cli.bounds.margins import ibp_margins as ibp_margins
from robustbench_cli.bounds.margins import zonotope_margins as zonotope_margins
from robustbench_cli.bounds.trace import TracedModel as TracedModel
from robustbench_cli.bounds.zonotopes import RELU_TRANSFORMERS as RELU_TRANSFORMERS
