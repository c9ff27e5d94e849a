"""The adversarial loss around the weights, which AWP flattens (Wu et al., 2020), figure 1.

https://arxiv.org/abs/2004.05884; directions are filter-normalised (Li et al., 2018),
https://arxiv.org/abs/1712.09913.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number
from robustbench_cli.figures import FIGURES, _style
from robustbench_cli.figures._measured import MeasuredFigure, MeasuredModel, ResultTable, title
from robustbench_cli.figures._style import COLOURS, HEIGHT, MARKERS, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Page

_SPLITS = {"train": "training", "test": "test"}
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"


@FIGURES.register("landscape")
@dataclass(frozen=True, kw_only=True)
class WeightLandscape(MeasuredFigure):
    """PGD-10 loss of models whose weights are moved along random directions.

    x axis: alpha, where the weights are w + alpha d; y axis: mean cross-entropy in nats on
    adversarial examples that are made anew at every point.  d is Gaussian, with every filter scaled
    to the norm of the model's own; biases and BatchNorm are not moved.
    """

    n: Annotated[int, Field(ge=1)] = 256
    """Number of examples, the first ones of the split."""
    split: Literal["train", "test"] = "train"
    """Split of the examples: the paper's loss is on training examples (equation 1)."""
    points: Annotated[int, Field(ge=2)] = 21
    """Number of alphas; an odd number includes alpha = 0, the model itself."""
    reach: Annotated[Number, Field(gt=0)] = 1.0
    """Largest alpha."""
    directions: Annotated[int, Field(ge=1)] = 1
    """Random directions; of several, the mean and the range are drawn."""

    def measure(self, subject: MeasuredModel) -> ResultTable:
        from robustbench_cli.figures._landscape_data import landscape

        data = subject.dataset.load(self.split, subject.data_dir)
        if self.n > len(data):
            raise UserError(f"n={self.n}: the {self.split} split has {len(data)} examples")
        data = data.only(slice(self.n)).to(subject.device)
        middle = (self.points - 1) / 2
        alphas = [self.reach * (at - middle) / middle for at in range(self.points)]
        losses = landscape(
            subject.model, data, subject.threat, self.seed, alphas, self.directions, subject.done
        )
        return {"alpha": alphas, "loss": losses}

    def paint(
        self, about: ResultTable, found: Sequence[ResultTable], names: Sequence[str]
    ) -> "Page":
        labels = [_style.label(name) for name in names]
        page = _style.sheet_for(labels, WIDTH, HEIGHT, title_lines=self.directions > 1)
        axes = page.add_subplot()
        lines = []
        for at, one in enumerate(found):
            colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
            columns = list(zip(*one["loss"], strict=True))
            mean = [sum(column) / len(column) for column in columns]
            look: Any = {"color": colour, "marker": marker, "markersize": 4, "clip_on": False}
            lines += axes.plot(one["alpha"], mean, zorder=3, **look)
            if self.directions > 1:
                ends = [min(c) for c in columns], [max(c) for c in columns]
                axes.fill_between(one["alpha"], *ends, color=colour, alpha=0.15, linewidth=0)
        images = f"{self.n} {_SPLITS[self.split]} images"
        axes.set_title(f"{title(about)}, {images}", loc="left", pad=10)
        axes.set_xlabel(f"{ALPHA} (weights w + {ALPHA} d)")
        axes.set_ylabel("adversarial loss (cross-entropy)")
        axes.set_xlim(-self.reach, self.reach)
        ticks = [self.reach * share for share in (-1, -0.5, 0, 0.5, 1)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_ylim(bottom=0)
        axes.grid(True)
        bands = f"bands: range over {self.directions} directions" if self.directions > 1 else None
        _style.legend(page, lines, labels, WIDTH, title=bands)
        return page
