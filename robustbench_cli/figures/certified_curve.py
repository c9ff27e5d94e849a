"""Certified accuracy over the radius (Cohen, Rosenfeld & Kolter, 2019), figures 6 to 8.

https://arxiv.org/abs/1902.02918
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

from robustbench_cli.core.errors import UserError
from robustbench_cli.figures import FIGURES, Figure, Material, Painter, _style, few
from robustbench_cli.figures._curves import CurvePanel, DrawnCurve, paint_curves
from robustbench_cli.report.example_files import ExampleFiles, MissingVerdicts
from robustbench_cli.report.number_trust import NumberTrust, proven_trust
from robustbench_cli.report.robustness_table import finished
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run


@FIGURES.register("certified-curve")
@dataclass(frozen=True, kw_only=True)
class CertifiedCurves(Figure):
    """Certified accuracy over the radius, from evaluations with --certify; without names, from all.

    y axis: the share of images, in percent, whose true class is proven to stay the predicted one
    within the radius on the x axis, in the certificate's norm.  A dotted line is the radius of the
    threat.  Curves that mean nothing, of a model that is set up wrongly or of a certificate that
    proves nothing of it, are left out and named.
    """

    def prepare(self, material: Material) -> Painter:
        recorded = material.recorded()
        wanted = [run for run in finished(recorded.runs) if recorded.selects(run)]
        found: dict[tuple[str, str, int], list[tuple[Run, str]]] = defaultdict(list)
        for run in wanted:
            for label, proof in run.certificates.items():
                if (trust := proven_trust(run, label)) is not None and trust.withheld:
                    material.feedback.note(f"left out: {label} of {run.id}, which {_why(trust)}")
                else:
                    found[records.data_name(run), proof.norm, proof.n].append((run, label))
        if not found:
            of = f" of {few([run.id for run in recorded.named])}" if recorded.named else ""
            raise UserError(
                f"no evaluation{of} with a certificate to draw; make one: "
                "advbench eval --certify smoothing (advbench list certificates)"
            )
        files = ExampleFiles.of_runs(recorded.placed)
        try:
            panels = [_panel(*key, pairs, files) for key, pairs in found.items()]
        except MissingVerdicts as error:
            raise UserError(f"the radii of each image are needed, but {error}") from None
        return partial(paint_curves, panels)


def _why(trust: NumberTrust) -> str:
    return "proves nothing of any image" if trust.silent else "means nothing"


def _panel(
    dataset: str, norm: str, n: int, pairs: list[tuple[Run, str]], files: ExampleFiles
) -> CurvePanel:
    """Return the curves of certificates in one norm, on as many images of one data set."""
    names = [f"{run.subject}{run.settings.behind}, {label}" for run, label in pairs]
    curves = []
    for (run, label), name in zip(pairs, names, strict=True):
        file = files.of(run)
        right = file.array(f"{label}/certified") == file.array("label")
        radius = sorted(float(each) for each in file.array(f"{label}/radius")[right])
        left = [100 * (len(radius) - i) / n for i in range(len(radius))]
        one = name if names.count(name) == 1 else f"{name} ({run.id})"
        # From the first radius on, as many are left as reach it; after the last one none is.
        far = [0.0, *radius, radius[-1]] if radius else [0.0]
        shares = [100 * len(radius) / n, *left, 0.0] if radius else [0.0]
        curves.append(DrawnCurve(name=one, x=far, y=shares, steps=True))
    balls = {run.settings.threat.eps for run, _ in pairs if run.settings.threat.norm == norm}
    return CurvePanel(
        title=f"{dataset}, n {n}",
        over=f"radius ({_style.ell(norm)})",
        shown="certified accuracy (%)",
        curves=tuple(curves),
        marks=tuple(sorted(balls)),
    )
