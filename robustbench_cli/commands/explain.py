"""``advbench explain``: maps of what a model's answers depend on, pictures and measures of them."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.commands import devices
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import new_record
from robustbench_cli.commands.explain_request import (
    PREDICTED,
    ExplainRequest,
    built_methods,
    class_number,
    described_request,
)
from robustbench_cli.commands.explanation_scores import (
    FEW_IMAGES,
    ScoredImages,
    change_scores,
    curves_of,
    map_scores,
    sanity_measure,
)
from robustbench_cli.commands.given_model import fit_to_data
from robustbench_cli.commands.insertion_deletion import RankCurves
from robustbench_cli.commands.object_places import object_places
from robustbench_cli.commands.run_folder import leaves_nothing
from robustbench_cli.commands.subset import counted_images, test_images
from robustbench_cli.commands.weights_sanity import (
    layers_from_the_top,
    random_weights,
    rank_correlation,
)
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import Split
from robustbench_cli.distributed import env
from robustbench_cli.distributed.group import join_processes
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.evaluation.model_check import gradient_obstacle
from robustbench_cli.evaluation.verifier import predict, unchanged_model
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.models.layout import laid_out
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.recorder import recording

EXPLANATION_FILE = "explanations.npz"
SANITY = "sanity: rank correlation"
"""The name of the measure of maps against those of weights that are all random."""
_COMPARED = "gradient"
"""The method that is measured in any case, so that others can be compared with it."""
_SHOWN = 32
"""Images that a method gets at a time at most, so that the progress of a slow one can be seen."""


@dataclass(frozen=True, kw_only=True)
class _Maps:
    """What one method says of all images."""

    method: Explanation
    maps: Tensor
    """Importances (N, H, W)."""
    counterfactual: Tensor | None
    facts: Mapping[str, Tensor]


def explain_model(request: ExplainRequest, display: Display) -> Path:
    """Explain a model's answers, judge the explanations; return the folder of the run.

    It holds ``explanations.npz``: per method its maps, its counterfactual images if it makes any,
    and the curves of insertion and deletion.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
        RunError: the model changed while it was explained.
    """
    if env.world() > 1:
        raise UserError("explain keeps all images in one process: run it without torchrun")
    began, config = time.perf_counter(), request.images.config
    methods = built_methods(request.methods)
    where = devices.resolve_device(request.images.workspace.device)
    with join_processes(request.images.workspace.device) as shard:
        test = test_images(request.images, shard)
    chosen = counted_images(test, config)
    images = fit_to_data(request.images, test)
    data = chosen.only(slice(config.n or len(chosen))).to(where)
    model = laid_out(images.subject.model, where)
    if reason := gradient_obstacle(model, data.images(slice(2)), len(data.classes)):
        raise UserError(f"{reason}; explanations follow it")
    session = _Session(request, model, data, display)
    record = new_record(images, data, chosen, len(test), where)
    run = replace(record, config=described_request(request, methods, record.config))
    folder = folders.new(request.images.workspace.out, run.id)
    ends = partial(leaves_nothing, resumable=False)
    with recording(run, folder, worthless=ends) as recorder:
        with unchanged_model(model):
            measures, arrays = session.explain(methods)
        notes = [*dict.fromkeys((*images.subject.notes, *data.notes, *session.notes))]
        path = write_arrays(folder / EXPLANATION_FILE, arrays)
        recorder.update(
            measures=measures,
            notes=notes,
            explanations=records.filed(path),
            seconds=time.perf_counter() - began,
        )
    for note in notes:
        display.note(note)
    return folder


class _Session:
    """The images of one command, and what methods say of them."""

    def __init__(
        self, request: ExplainRequest, model: nn.Module, data: Split, display: Display
    ) -> None:
        self._request, self._model, self._display = request, model, display
        self._data, self._seed = data, request.images.config.seed
        self._noise = Noise(self._seed, data.ids).fork("explain")
        self._x = data.images(slice(None))
        self._at_once = request.images.config.batch_size
        self._places = object_places(request.places, self._x, data.ids)
        self._class = class_number(request.target, data.classes)
        self.notes: list[str] = [self._places.unknown] if self._places.unknown else []

    def explain(
        self, methods: Mapping[str, Explanation]
    ) -> tuple[list[Measure], dict[str, np.ndarray]]:
        """Return all measures, and the arrays of the file."""
        with torch.no_grad():
            parts = torch.split(self._x, self._at_once)
            prediction = torch.cat([predict(self._model, part).argmax(1) for part in parts])
        target = self._target(prediction)
        self._look_at(prediction)
        every = dict(methods)
        if all(EXPLANATIONS.name_of(each) != _COMPARED for each in methods.values()):
            every[_COMPARED] = EXPLANATIONS.build(Spec(_COMPARED))
        scored = ScoredImages(
            model=self._model,
            x=self._x,
            target=target,
            places=self._places,
            noise=self._noise,
            steps=self._request.steps,
            at_once=self._at_once,
        )
        arrays = {
            "index": self._data.ids.cpu().numpy(),
            "label": self._data.y.cpu().numpy(),
            "prediction": prediction.cpu().numpy(),
            "target": target.cpu().numpy(),
            "image": self._x[: self._request.pictured].cpu().numpy(),
        }
        measures: list[Measure] = []
        found: dict[str, _Maps] = {}
        for label, method in every.items():
            try:
                found[label] = self._explained(label, method, self._model, target)
            except UserError as error:
                if label in methods:
                    raise
                self.notes.append(f"no row {label!r} to compare with: {error}")
                continue
            new, kept = self._judged(label, found[label], scored)
            measures += new
            arrays |= {f"{label}/{name}": each for name, each in kept.items()}
        measures += self._sane(found, target)
        for label, maps in self._baselines():
            measures += map_scores(label, maps, scored, curves_of(maps, scored))
        return measures, arrays

    def _target(self, prediction: Tensor) -> Tensor:
        if self._class is not None:
            return torch.full_like(prediction, self._class)
        return prediction if self._request.target == PREDICTED else self._data.y.to(prediction)

    def _look_at(self, prediction: Tensor) -> None:
        """Note what makes the numbers of little use."""
        n, classes = len(prediction), torch.unique(prediction)
        if n < FEW_IMAGES:
            self.notes.append(f"means over {n} images may be luck: --n {FEW_IMAGES} or more")
        if len(classes) == 1 and len(torch.unique(self._data.y)) > 1:
            name = self._data.classes[int(classes)]
            self.notes.append(
                f"the model gives all {n} images the class {name!r}: what it depends on does not "
                "tell them apart"
            )

    def _explained(
        self, label: str, method: Explanation, model: nn.Module, target: Tensor
    ) -> _Maps:
        maps, images, facts = [], [], []
        n, most = len(target), min(self._at_once, _SHOWN)
        self._display.working(label, 0, n)
        for rows in torch.split(torch.arange(n, device=target.device), most):
            asked = ExplainedImages(
                model=model, x=self._x[rows], target=target[rows], noise=self._noise.only(rows)
            )
            found = method.explained(asked)
            maps.append(method.saliency(found.attributions))
            images += [] if found.counterfactual is None else [found.counterfactual]
            facts.append(found.facts)
            self._display.working(label, int(rows[-1]) + 1, n)
        return _Maps(
            method=method,
            maps=torch.cat(maps),
            counterfactual=torch.cat(images) if images else None,
            facts={name: torch.cat([each[name] for each in facts]) for name in facts[0]},
        )

    def _judged(
        self, label: str, found: _Maps, scored: ScoredImages
    ) -> tuple[list[Measure], dict[str, np.ndarray]]:
        curves = curves_of(found.maps, scored)
        measures = [*map_scores(label, found.maps, scored, curves)]
        kept = {"map": found.maps, **RankCurves._asdict(curves)}
        if found.counterfactual is not None:
            changed = found.counterfactual
            measures += change_scores(label, changed, found.facts, scored)
            kept |= {"counterfactual": changed, **found.facts}
        return measures, {name: each.cpu().float().numpy() for name, each in kept.items()}

    def _sane(self, found: Mapping[str, _Maps], target: Tensor) -> Iterator[Measure]:
        """Yield the rank correlations of maps with those of random weights."""
        if self._request.sanity == "none":
            return
        last = layers_from_the_top(self._model)[-1:]
        for layer, other in random_weights(self._model, self._seed):
            if self._request.sanity == "all" and [layer] != last:
                continue
            name = SANITY if [layer] == last else f"sanity: down to {layer}"
            for label, each in found.items():
                again = self._explained(f"{label}, random weights", each.method, other, target)
                correlation = rank_correlation(each.maps, again.maps)
                yield sanity_measure(label, name, correlation)

    def _baselines(self) -> Iterator[tuple[str, Tensor]]:
        even = torch.ones_like(self._x[:, 0])
        yield "uniform", even
        yield "random", self._noise.fork("random map").uniform(even)
