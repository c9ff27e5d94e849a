"""``advbench attack``: adversarial examples, kept, with a picture."""

from dataclasses import asdict
from pathlib import Path

import torch

from robustbench_cli import picture, records
from robustbench_cli.config import EvalConfig, spec_of
from robustbench_cli.data import DATASETS
from robustbench_cli.engine.evaluate import Meter, craft, examine, judging, predict
from robustbench_cli.engine.journal import write_arrays
from robustbench_cli.noise import Noise
from robustbench_cli.records import Outcome, Run
from robustbench_cli.run import setup
from robustbench_cli.run.display import Display
from robustbench_cli.run.evaluate import Subject
from robustbench_cli.run.setup import Place

SHOWN = 8
"""Examples in the picture."""


def attack(
    subject: Subject,
    config: EvalConfig,
    place: Place,
    display: Display,
    *,
    command: list[str],
    name: str | None,
) -> Path:
    """Attack the first ``config.n`` test examples; return the folder.

    It holds ``adversarial.npz`` (x, x_adv, y, clean, adversarial, norm, step) and
    ``adversarial.png``.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
    """
    where = setup.device(place.device)
    dataset = DATASETS.build(spec_of(config.dataset))
    test = dataset.load("test", place.data_dir)
    data = test.only(slice(min(config.n, len(test)) or len(test))).to(where)
    ((label, chosen),) = setup.build_attacks(config, len(test.classes)).items()
    model = subject.model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    examine(model, data.images(slice(2)), len(test.classes))
    run = Run(
        id=name or records.new_id(f"attack-{subject.name}", config.dataset["name"], subject.seed),
        kind="attack",
        created=records.now(),
        command=command,
        config=asdict(config),
        seed=subject.seed,
        parent=subject.parent,
        subject=subject.name,
        dataset={"name": config.dataset["name"], "test_sha256": test.fingerprint()},
        environment=setup.environment(where),
        weights=subject.weights,
        n=len(data),
    )
    folder = records.new_folder(place.out, run.id)
    noise = Noise(config.seed, torch.arange(len(data), device=where))
    source = noise.fork(config.attack[label]["name"])
    meter, kept = Meter(model), []
    with records.recording(run, folder) as recorder, judging(model):
        display.judging(label, len(data))
        right = 0
        for rows in torch.split(torch.arange(len(data), device=where), config.batch_size):
            x, y = data.images(rows), data.y[rows]
            clean = predict(meter, x)
            x_adv, step = craft(meter, x, y, clean == y, chosen, config.threat, source.only(rows))
            found = predict(meter, x_adv)
            norm = config.threat.distance(x_adv, x)
            step = torch.where(found != y, step, -1)
            kept.append([t.cpu() for t in (x, x_adv, y, clean, found, norm, step)])
            right += int(((clean == y) & (found == y)).sum())
            done = sum(len(batch[0]) for batch in kept)
            display.judged(done, right / done)
        x, x_adv, y, clean, found, norm, step = (torch.cat(c) for c in zip(*kept, strict=True))
        path = write_arrays(
            folder / "adversarial.npz",
            {
                "x": x.numpy(),
                "x_adv": x_adv.numpy(),
                "y": y.numpy(),
                "clean": clean.numpy(),
                "adversarial": found.numpy(),
                "norm": norm.numpy(),
                "step": step.numpy(),
            },
        )
        # The most telling ones first: what the attack broke.
        order = torch.argsort(((clean == y) & (found != y)).int(), descending=True, stable=True)
        rows = order[:SHOWN]
        names = data.classes
        titles = [(names[int(clean[i])], names[int(found[i])]) for i in rows]
        picture.grid(
            folder / "adversarial.png",
            x[rows],
            x_adv[rows],
            titles,
            f"{label} on {subject.name}, {config.threat}",
            float((x_adv - x).abs().max()),
        )
        recorder.update(
            clean_accuracy=float((clean == y).float().mean()),
            attacks={
                label: Outcome(
                    params=config.attack[label],
                    n=len(data),
                    correct=right,
                    robust_accuracy=right / len(data),
                    forwards=meter.forwards,
                    backwards=meter.backwards,
                    seconds=(records.now() - run.created).total_seconds(),
                )
            },
            examples={"file": path.name, "sha256": records.sha256(path)},
        )
    return folder
