"""``advbench retrieve``: how well embeddings find images of the same class, also under attack."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from robustbench_cli.commands import devices
from robustbench_cli.commands.components import component_label
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.metric_data import retrieval_images
from robustbench_cli.commands.retrieval_measures import (
    Sums,
    attack_measures,
    clean_measures,
    collapse_note,
    score_measures,
    worst_case,
)
from robustbench_cli.commands.run_folder import leaves_nothing, open_run_folder
from robustbench_cli.commands.train_metric import load_embedder
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import TrainConfig, as_recorded, spec_of, validated
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.distributed import env
from robustbench_cli.evaluation.float32 import float32
from robustbench_cli.metric_learning._embedder import Embedder
from robustbench_cli.metric_learning._recall import Ranked, embed_split, embedded
from robustbench_cli.metric_learning.retrieval import (
    RETRIEVAL_ATTACKS,
    Queries,
    RetrievalAttack,
)
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.recorder import recording
from robustbench_cli.runs.records import Run
from robustbench_cli.runs.retrieval_rows import CLEAN_ROW, ERS, attack_row, score_row

_SCORED = ("ca+", "ca-", "qa+", "qa-", "tma", "es", "ltm", "gtm", "gtt")


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """The settings of one ``advbench retrieve``."""

    run: str | None
    """The metric-learning run; None: the latest training run."""
    attacks: Sequence[str]
    """Attacks with their parameters, as typed; none: clean images only."""
    eps: Sequence[str]
    """Radii for images in [0, 1], as typed; none: the one of the training."""
    norm: str | None
    steps: int | None
    """Steps of every attack; None: each one's own."""
    n: int | None
    """First N images of the gallery that are attacked; None: all."""
    seed: int
    batch_size: int
    workspace: Workspace
    command: list[str]
    name: str | None = None


def run_retrieval(request: Retrieval, display: Display) -> Path:
    """Measure retrieval among the test images of a run's data; return the folder of the record.

    The gallery is all test images, each query's own left out, and it is clean.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
        RunError: an attacked image is not allowed, or an embedding is not finite.
    """
    began, workspace = time.perf_counter(), request.workspace
    if env.world() > 1:
        raise UserError("retrieve keeps all images in one process: run it without torchrun")
    source = folders.find_run(request.run, workspace.out, "train")
    trained = records.read(source)
    where = devices.resolve_device(workspace.device)
    model = load_embedder(trained, source, where)
    config = validated(TrainConfig, trained.config)
    attacks = _attacks(request)
    threats = _threats(request, config.threat) if attacks else []
    dataset = DATASETS.build(spec_of(config.dataset))
    data = retrieval_images(dataset, config.embedding, workspace.data_dir)
    if trained.settings.test_sha256 != data.fingerprint():
        raise UserError(
            f"run {trained.id!r} was trained beside other test images than "
            f"{trained.settings.data_name!r} holds now (fingerprints differ)"
        )
    run = _record(request, trained, config, attacks, threats, data, where)
    folder, run, _ = open_run_folder(run, workspace.out, request.name, display, fresh=True)
    ends = partial(leaves_nothing, resumable=False)
    with recording(run, folder, worthless=ends) as recorder, float32():
        display.started(recorder.run, folder)
        for text in data.notes:
            display.note(text)
        measuring = _Measuring(model, data.to(where), request, config.embedding.unit)
        note = collapse_note(measuring.gallery)
        if note:
            display.note(f"warning: {note}")
        measures = list(measuring.measures(attacks, threats, display))
        recorder.update(
            measures=measures,
            n=len(measuring.rows),
            notes=[*recorder.run.notes, *data.notes, *([note] if note else [])],
            seconds=time.perf_counter() - began,
        )
    return folder


def _attacks(request: Retrieval) -> dict[str, RetrievalAttack]:
    """Return the attacks by their labels, with the number of steps that was asked for."""
    found = {}
    named = [each for text in request.attacks for each in (_SCORED if text == ERS else (text,))]
    for text in named:
        spec = Spec.parse(text)
        if request.steps is not None:
            spec = Spec(spec.name, {"steps": str(request.steps), **spec.params}, spec.label)
        attack = RETRIEVAL_ATTACKS.build(spec)
        found[component_label(RETRIEVAL_ATTACKS, attack)] = attack
    return found


def _threats(request: Retrieval, trained: Threat) -> list[Threat]:
    """Return the threats, one per radius."""
    norm = request.norm or trained.norm
    if not request.eps and norm != trained.norm:
        raise UserError(f"--norm {norm}: say how far, with --eps")
    radii: Sequence[object] = request.eps or [trained.eps]
    threats = [validated(Threat, {"norm": norm, "eps": eps}) for eps in radii]
    for threat in threats:
        if not threat.is_ball:
            raise UserError(f"attacks on retrieval stay in a ball: Linf, L2 or L1, not {norm}")
    return list({threat.eps: threat for threat in threats}.values())


def _record(
    request: Retrieval,
    trained: Run,
    config: TrainConfig,
    attacks: Mapping[str, RetrievalAttack],
    threats: Sequence[Threat],
    data: Split,
    where: torch.device,
) -> Run:
    base = as_recorded(config)
    kept = trained.checkpoint
    first = threats[0] if threats else config.threat
    sections = ("dataset", "model", "defense", "embedding", "task")
    made_up = f"retrieve-{trained.subject.replace(' ', '-').replace(':', '-')}"
    asked = {
        "norm": first.norm,
        "radii": [threat.eps for threat in threats],
        "attacks": {label: RETRIEVAL_ATTACKS.describe(each) for label, each in attacks.items()},
        "n": request.n or 0,
    }
    return Run(
        id=request.name or folders.new_id(made_up, config.dataset["name"], trained.seed),
        kind="retrieve",
        created=records.now(),
        command=request.command,
        config=records.as_json(
            {
                **{key: base[key] for key in sections},
                "threat": {"norm": first.norm, "eps": first.eps},
                "retrieve": asked,
                "seed": request.seed,
            }
        ),
        seed=trained.seed,
        parent=trained.id,
        subject=trained.subject,
        dataset={**trained.dataset, "test": len(data), "test_sha256": data.fingerprint()},
        environment=devices.run_environment(where),
        weights=kept.sha256 if kept else "",
        evaluated=kept,
    )


class _Measuring:
    """A net, its gallery, and the queries that count."""

    def __init__(self, model: Embedder, data: Split, request: Retrieval, unit: bool) -> None:
        self.model, self.data, self.request, self.unit = model, data, request, unit
        self.gallery = embed_split(model, data)
        if not bool(self.gallery.z.isfinite().all()):
            raise RunError("embeddings of clean images are not finite; train again")
        count = min(request.n or len(data), len(data))
        self.rows = torch.arange(count, device=data.y.device)
        self.right = self._ranked(self.gallery.z[self.rows], self.rows).recall(1)

    def measures(
        self, attacks: Mapping[str, RetrievalAttack], threats: Sequence[Threat], display: Display
    ) -> Iterator[Measure]:
        """Yield the measures: of clean images, of each attack at each radius, and their score."""
        display.judging(CLEAN_ROW, len(self.rows), "R@1")
        sums = Sums()
        for rows in torch.split(self.rows, self.request.batch_size):
            sums.add_ranks(self._ranked(self.gallery.z[rows], rows), self.right[rows])
        display.judged(len(self.rows), sums.mean("R@1"))
        yield from clean_measures(sums, self.gallery)
        for threat in threats:
            found: dict[str, float] = {}
            stood = self.right.clone()
            for label, attack in attacks.items():
                of = attack_row(label, threat.eps)
                sums = self._attacked(of, label, attack, threat, display, stood)
                found |= {name: sums.mean(name) for name in attack.scales}
                yield from attack_measures(of, attack, sums, self.gallery)
            every, n = score_row(threat.eps), len(self.rows)
            if sum(attack.as_query for attack in attacks.values()) > 1:
                yield worst_case(every, stood, self.gallery)
            yield from score_measures(every, found, n, self.gallery, self.unit)

    def _attacked(
        self,
        of: str,
        label: str,
        attack: RetrievalAttack,
        threat: Threat,
        display: Display,
        stood: Tensor,
    ) -> Sums:
        """Return the sums of an attack's measures over all queries.

        Args:
            of: the attack and its radius, in words.
            label: the attack without its radius, on which no random choice depends.
            stood: whether no attack has misled a query so far (N, bool); changed in place.
        """
        sums, done = Sums(), 0
        what = "R@1" if attack.as_query else next(iter(attack.scales), "")
        display.judging(of, len(self.rows), what)
        for rows in torch.split(self.rows, self.request.batch_size):
            queries = Queries(
                model=self.model,
                gallery=self.gallery,
                x=self.data.images(rows),
                y=self.data.y[rows],
                own=rows,
                threat=threat,
                noise=Noise(self.request.seed, self.data.ids[rows], f"retrieve {label}"),
            )
            aims = attack.aims(queries)
            x_adv = threat.stored(attack.attacked(queries, aims), queries.x)
            if attack.spares_wrong:
                wrong = ~self.right[rows]
                x_adv[wrong] = queries.x[wrong]
            if not bool(threat.inside(x_adv, queries.x).all()):
                raise RunError(f"{of}: an attacked image is outside of {threat}")
            z = embedded(self.model, x_adv)
            if not bool(z.isfinite().all()):
                raise RunError(f"{of}: an embedding under attack is not finite")
            if attack.as_query:
                ranked = self._ranked(z, rows)
                sums.add_ranks(ranked, self.right[rows])
                stood[rows] &= ranked.recall(1)
            for name, values in attack.scores(z, aims, queries).items():
                sums.add(name, values)
            done += len(rows)
            display.judged(done, sums.mean(what))
        return sums

    def _ranked(self, z: Tensor, rows: Tensor) -> Ranked:
        return Ranked.of(self.gallery, z, self.data.y[rows], rows)
