"""What cheap attacks leave of trained nets, and their passes, beside AutoAttack and others.

    python benchmarks/strength.py measure --run results/a --run results/b --planted flat:clamped
    python benchmarks/strength.py show

Each attack meets each net by itself, so what a series leaves and costs follows from its members
(``series.py``).  The other libraries' nearest attack is APGD on targets; theirs are left out, with
a line that says so, where they are not installed (README.md).  What was measured stands in
``docs/strength.json`` and is not measured again.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from case import Case
from series import AUTOATTACK, Measured, kept, rows_text
from suites import Net, measured, run_net, zoo_net
from torch import Tensor, nn

from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.evaluation.meter import Meter

KEPT = Path(__file__).parents[1] / "docs" / "strength.json"
ALONE = (
    *AUTOATTACK,
    *("mm3", "mm9", "mm+", "pma", "apgd-t:targeting=malt"),
    *("square:queries=100", "square:queries=300", "square:queries=1000"),
)
"""AutoAttack's members, the attacks of the table, and the members of the suites."""
PEERS: dict[str, Callable[[Case], Tensor]] = {}
"""Library and attack, and how it is called; the images of the case are all right when clean."""
app = typer.Typer()


def peer(name: str) -> Callable[[Callable[[Case], Tensor]], Callable[[Case], Tensor]]:
    """Register another library's attack."""

    def add(call: Callable[[Case], Tensor]) -> Callable[[Case], Tensor]:
        PEERS[name] = call
        return call

    return add


@peer("adv-lib apgd_targeted")
def advlib(case: Case) -> Tensor:
    """100 steps against each of nine targets, one start: its defaults but for the targets."""
    from adv_lib.attacks import apgd_targeted

    targets = min(9, case.classes - 1)
    return case.batched(
        lambda x, y: apgd_targeted(
            case.model, x, y, case.eps, float("inf"), n_iter=100, num_targets=targets
        )
    )


@peer("torchattacks APGDT")
def torchattacks(case: Case) -> Tensor:
    """100 steps (default: 10) against each of nine targets, one start."""
    from torchattacks import APGDT

    attack = APGDT(case.model, norm="Linf", eps=case.eps, steps=100, n_classes=case.classes)
    return case.batched(attack)


class Counted(nn.Module):
    """A model that counts its passes, as other libraries take one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.meter = Meter(model)

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's logits (N, K)."""
        return self.meter(x)


def by_peer(net: Net, name: str, standing: Tensor) -> Measured:
    """Run another library's attack, on the images that AutoAttack leaves and on the others apart.

    So the passes of an image that stands are known: a library may go on with broken ones.

    Args:
        standing: bool, of the images that are right when clean.
    """
    with torch.no_grad():
        logits = net.model(net.x)
    right = (logits.argmax(1) == net.y).nonzero().squeeze(1)
    broken = torch.zeros(len(right), dtype=torch.bool)
    passes, began = torch.zeros(len(right), dtype=torch.int64), time.perf_counter()
    for part in (standing, ~standing):
        if not part.any():
            continue
        rows, model = right[part], Counted(net.model)
        case = Case(
            model=model,
            x=net.x[rows],
            y=net.y[rows],
            classes=logits.shape[1],
            threat=net.threat,
            batch_size=256,
        )
        torch.manual_seed(0)
        crafted = PEERS[name](case)
        passes[part] = round((model.meter.forwards + model.meter.backwards) / len(rows))
        inside = net.threat.inside(crafted.clamp(0, 1), case.x)
        broken[part] = (case.predictions(crafted.clamp(0, 1)) != case.y) & inside
    return Measured(
        net=net.name,
        half="report",
        planted=net.planted,
        attack=name,
        n=len(net.x),
        broken="".join("01"[bool(each)] for each in broken),
        passes=passes.tolist(),
        seconds=round(time.perf_counter() - began, 2),
    )


@app.command()
def measure(
    run: Annotated[list[Path] | None, typer.Option(help="A training run; repeat.")] = None,
    planted: Annotated[list[str] | None, typer.Option(help="A member of the zoo.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Images of each net.")] = 200,
    data_dir: Annotated[Path, typer.Option(envvar="ADVBENCH_DATA")] = Path("../shared/data"),
) -> None:
    """Measure every attack on every net."""
    from members import MEMBERS

    nets = [run_net(folder, n, data_dir) for folder in run or []]
    nets += [zoo_net(each, n) for each in MEMBERS if each.name in (planted or [])]
    rows = kept(KEPT)
    for net in nets:
        mine = {row.attack: row for row in rows if row.net == net.name}
        for attack in (*ALONE, *PEERS):
            if attack in mine:
                continue
            try:
                mine[attack] = (
                    by_peer(net, attack, _standing(mine))
                    if attack in PEERS
                    else measured(net, attack)
                )
            except ImportError as error:
                print(f"{attack}: left out: {error}", flush=True)
                continue
            print(f"{net.name} {attack} {mine[attack].seconds} s", flush=True)
            rows.append(mine[attack])
            write_bytes_atomically(KEPT, rows_text(rows).encode())


def _standing(mine: dict[str, Measured]) -> Tensor:
    flags = [torch.from_numpy(mine[attack].flags) for attack in AUTOATTACK]
    return ~torch.stack(flags).any(0)


@app.command()
def show() -> None:
    """Print the tables of docs/suites.md."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
    from strength_table import STRENGTH

    print(*(part() for part in STRENGTH.values()), sep="\n\n")


if __name__ == "__main__":
    app()
