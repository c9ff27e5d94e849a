"""Measure attacks one by one on many nets, and search for the cheapest series of them.

    python benchmarks/suites.py measure                       # the zoo's nets; an hour on two cores
    python benchmarks/suites.py measure --run results/mine    # and nets of one's own
    python benchmarks/suites.py search                        # half of the nets are held out

An attack's verdict on an image depends on nothing but the image, so what any series of attacks
leaves standing, and what it costs in any order, follows from each attack's own verdicts and passes.
They are kept in ``docs/suites.json``; rows that are there are not measured again.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "zoo"))

from members import MEMBERS, Member
from series import AUTOATTACK, KEPT, Measured, Table, kept, rows_text
from truth import images

from robustbench_cli import load_run
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.core.example_rng import Noise, stream_key
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.models.foreign import load_foreign
from robustbench_cli.models.layout import laid_out

CANDIDATES = (
    *AUTOATTACK,
    *("mm3", "mm9", "mm+", "md", "pma", "pgd-odi"),
    *("apgd-ce:steps=20", "apgd-ce:steps=50", "apgd-dlr:steps=50"),
    *("apgd-t:steps=20,targets=3", "apgd-t:steps=30", "apgd-t:targeting=malt,targets=3"),
    *("fab-t:within=true,steps=20,targets=3", "square:queries=100", "square:queries=300"),
    *("square:queries=1000",),
)
"""What a series may be made of."""
PARTS = 4
"""Attacks in a series at most."""
app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class Net:
    """A model, its images and its radius."""

    name: str
    half: str
    """``tune``: the search sees it; ``report``: it is held out."""
    planted: bool
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat


def zoo_net(member: Member, n: int) -> Net:
    """Load a member of the zoo with its first images."""
    x, y = images(member, n)
    return Net(
        name=member.name,
        half=member.half,
        planted=member.planted,
        model=load_foreign(member.factory, None),
        x=x,
        y=y,
        threat=Threat("Linf", member.eps),
    )


def run_net(folder: Path, n: int, data_dir: Path) -> Net:
    """Load a training run with its first test images; it is held out."""
    run = load_run(folder)
    x, y = run.test_images(n, data_dir=data_dir)
    return Net(
        name=folder.name,
        half="report",
        planted=False,
        model=run.model,
        x=x,
        y=y,
        threat=run.threat,
    )


def measured(net: Net, attack: str) -> Measured:
    """Run an attack by itself; each image leaves as soon as it is broken."""
    model = laid_out(net.model.eval().requires_grad_(False), torch.device("cpu"))
    with torch.no_grad():
        rows = (model(net.x).argmax(1) == net.y).nonzero().squeeze(1)
    began = time.perf_counter()
    found = attack_batch(
        model,
        net.x[rows],
        net.y[rows],
        ATTACKS.build(Spec.parse(attack)),
        net.threat,
        Noise(0, rows).fork(stream_key(attack)),
        slots=256,
    )
    return Measured(
        net=net.name,
        half=net.half,
        planted=net.planted,
        attack=attack,
        n=len(net.x),
        broken="".join("01"[bool(each)] for each in found.broken),
        passes=(found.forwards + found.backwards).tolist(),
        seconds=round(time.perf_counter() - began, 2),
    )


@app.command()
def measure(
    run: Annotated[list[Path] | None, typer.Option(help="A training run, too; repeat.")] = None,
    only: Annotated[str, typer.Option(help="Members whose names contain this.")] = "",
    planted: Annotated[bool, typer.Option(help="The planted members, too.")] = False,
    zoo: Annotated[bool, typer.Option(help="The zoo's members.")] = True,
    n: Annotated[int, typer.Option(min=1, help="Images of a net of the zoo or a run.")] = 60,
    data_dir: Annotated[Path, typer.Option(envvar="ADVBENCH_DATA")] = Path("../shared/data"),
) -> None:
    """Measure every candidate on every net, the quick ones first."""
    rows = kept()
    there = {(row.net, row.attack) for row in rows}
    named = [
        member
        for member in MEMBERS
        if zoo and only in member.name and (planted or not member.planted)
        # What remembers, draws or answers batches together has verdicts of another kind.
        if member.deployed == "batch" and not member.options and not member.refused
    ]
    for net in _nets(named, run or [], n, data_dir):
        for attack in CANDIDATES:
            if (net.name, attack) in there:
                continue
            try:
                rows.append(measured(net, attack))
            except Exception as error:
                print(f"{net.name}: {attack}: {error}", flush=True)
                break
            print(f"{net.name} {attack} {rows[-1].seconds} s", flush=True)
        write_bytes_atomically(KEPT, rows_text(rows).encode())


def _nets(named: Sequence[Member], runs: Sequence[Path], n: int, data_dir: Path) -> Iterator[Net]:
    for folder in runs:
        yield run_net(folder, n, data_dir)
    for member in named:
        yield zoo_net(member, 24 if member.dataset == "cifar" else n)


def best_series(tune: Table, attacks: Sequence[str], budget: float, most: int) -> list[int]:
    """Return the series within the budget that leaves least, in its cheapest order."""
    full = tune.left([attacks.index(each) for each in AUTOATTACK])
    alone = [tune.price([place]) for place in range(len(attacks))]
    found: tuple[float, float, tuple[int, ...]] | None = None
    for size in range(1, most + 1):
        for chosen in itertools.combinations(range(len(attacks)), size):
            if sum(alone[place] for place in chosen) > budget:
                continue
            # Points above AutoAttack count; points below it do not make up for them.
            over = float(np.clip(tune.left(chosen) - full, 0, None).sum())
            rank = (over, float(tune.left(chosen).sum()), chosen)
            if found is None or rank[:2] < found[:2]:
                found = rank
    assert found
    return [*min(itertools.permutations(found[2]), key=tune.spent)]


@app.command()
def search(
    most: Annotated[int, typer.Option(min=1, help="Attacks in a series at most.")] = PARTS,
    out: Annotated[Path | None, typer.Option(help="Write the table here, too.")] = None,
) -> None:
    """Search on one half of the nets and show what is left on the other."""
    rows = kept()
    attacks = [each for each in CANDIDATES if any(row.attack == each for row in rows)]
    halves = {half: Table.of([r for r in rows if r.half == half], attacks) for half in HALVES}
    tune = halves["tune"]
    whole = [attacks.index(each) for each in AUTOATTACK]
    price = tune.price(whole)
    named = {
        "autoattack": whole,
        "quick": best_series(tune, attacks, price / 10, most),
        "strong": best_series(tune, attacks, price, most),
        **{each: [place] for place, each in enumerate(attacks)},
    }
    lines = [HEAD]
    for name, series in named.items():
        cells = [name, " / ".join(attacks[place] for place in series)]
        for half in HALVES:
            table = halves[half]
            more = table.left(series) - table.left(whole)
            cells += [f"{more.mean():+.2f}", f"{more.max():+.2f}", f"{table.price(series):,.0f}"]
            cells += [f"{table.spent(series) / table.spent(whole):.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines)
    print(f"{len(tune.nets)} nets to search on, {len(halves['report'].nets)} held out\n{text}")
    if out:
        write_bytes_atomically(out, f"{text}\n".encode())


HALVES = ("tune", "report")
HEAD = (
    "| series | of | tune, mean | worst | passes | cost | held out | worst | passes | cost |\n"
    "| :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: |"
)
"""Points above AutoAttack: the mean and the largest over nets; passes of an image that stands; all
passes, as a part of AutoAttack's."""

if __name__ == "__main__":
    os.environ.setdefault("ADVBENCH_DATA", "../shared/data")
    app()
