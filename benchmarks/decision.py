"""Decision-based attacks, and universal perturbations, beside foolbox's and ART's.

    python benchmarks/decision.py nearest --run results/some-digits-run --budgets 1000,5000
    python benchmarks/decision.py universal --run results/some-digits-run --eps 0.15

``nearest``: every library asks the same network about the same images that it is right about, one
image at a time; what counts is the nearest misclassified image among its first so many queries,
whether or not it would return that one.  ``universal``: every library fits one perturbation to the
same training images; what counts is the share of test images that are right without it and wrong
with it.  See README.md beside this file for how to install the others.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.commands.load_model import restore
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Norm, Threat
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.runs import records

app = typer.Typer(add_completion=False, help=__doc__)
Run = Annotated[Path, typer.Option(help="Folder of a training run.")]
DataDir = Annotated[Path, typer.Option(envvar="ADVBENCH_DATA")]
NOTHING = 1e9
"""A distance that stands for nothing found."""


class SpentError(Exception):
    """The budget of queries is used up."""


@dataclass
class Counted:
    """A network that counts its queries, keeps the nearest error, and stops at a budget."""

    net: nn.Module
    x: Tensor
    """One clean image (1, C, H, W)."""
    y: Tensor
    order: float
    """The order of the norm."""
    budgets: list[int]
    queries: int = 0
    nearest: float = NOTHING
    at: dict[int, float] = field(default_factory=dict)
    """The smallest distance after each budget."""

    def __call__(self, z: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W); each one is a query."""
        if self.queries >= max(self.budgets):
            raise SpentError
        z = z.float()
        with torch.no_grad():
            logits = self.net(z)
        away = torch.linalg.vector_norm((z - self.x).flatten(1), ord=self.order, dim=1)
        away = torch.where(logits.argmax(1) != self.y, away, NOTHING)
        for budget in self.budgets:
            known = away[: max(0, budget - self.queries)]
            if self.queries < budget and len(known):
                self.at[budget] = min(self.nearest, float(known.min()))
        self.queries += len(z)
        self.nearest = min(self.nearest, float(away.min()))
        return logits

    def module(self) -> nn.Module:
        """Return it as a module, for libraries that want one."""
        wrapped = nn.Module()
        wrapped.forward = self.__call__  # type: ignore[method-assign]
        return wrapped.eval()


def foolbox_boundary(net: Counted, _norm: Norm) -> None:
    """Default parameters."""
    import foolbox

    _foolbox(net, foolbox.attacks.BoundaryAttack(steps=10**6))


def foolbox_hop_skip_jump(net: Counted, norm: Norm) -> None:
    """Default parameters but for the number of rounds, which the budget ends."""
    import foolbox

    _foolbox(net, foolbox.attacks.HopSkipJumpAttack(steps=10**6, constraint=norm.lower()))


def _foolbox(net: Counted, attack: Any) -> None:
    import foolbox

    model = foolbox.PyTorchModel(net.module(), bounds=(0, 1), device="cpu")
    net.queries, net.at = 0, {}
    attack.run(model, net.x, foolbox.criteria.Misclassification(net.y))


def art_boundary(net: Counted, _norm: Norm) -> None:
    """Default parameters, untargeted, with as many steps as the budget allows."""
    from art.attacks.evasion import BoundaryAttack

    attack = BoundaryAttack(_art(net), targeted=False, max_iter=10**6, verbose=False)
    attack.generate(net.x.numpy(), y=np.eye(10)[net.y.numpy()])


def art_hop_skip_jump(net: Counted, norm: Norm) -> None:
    """Default parameters, with as many rounds as the budget allows."""
    from art.attacks.evasion import HopSkipJump

    order = 2 if norm == "L2" else np.inf
    attack = HopSkipJump(_art(net), targeted=False, norm=order, max_iter=10**6, verbose=False)
    attack.generate(net.x.numpy(), y=np.eye(10)[net.y.numpy()])


def _art(net: Counted | nn.Module, shape: tuple[int, ...] = ()) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        net.module() if isinstance(net, Counted) else net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(net.x.shape[1:]) if isinstance(net, Counted) else shape,
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )


Peer = Callable[[Counted, Norm], None]
CONTESTS: dict[tuple[str, Norm], dict[str, Peer]] = {
    ("boundary", "L2"): {"foolbox": foolbox_boundary, "art": art_boundary},
    ("hop-skip-jump", "L2"): {"foolbox": foolbox_hop_skip_jump, "art": art_hop_skip_jump},
    ("hop-skip-jump", "Linf"): {"foolbox": foolbox_hop_skip_jump, "art": art_hop_skip_jump},
}


@app.command()
def nearest(
    run: Run,
    data_dir: DataDir = Path("data"),
    n: int = 50,
    budgets: str = "1000,5000",
    seed: int = 0,
    only: str = "boundary,hop-skip-jump",
    libraries: str = "ours,foolbox,art",
) -> None:
    """Print the median distance of the nearest error at each budget of queries."""
    net, test, _ = _loaded(run, data_dir)
    x, y = _right(net, test, n)
    wanted = sorted(map(int, budgets.split(",")))
    print(f"{run.name}, {len(y)} images that are right, seed {seed}: median distance")
    print("attack | norm | library | " + " | ".join(f"{b} queries" for b in wanted) + " | CPU s")
    for (name, norm), peers in CONTESTS.items():
        if name not in only.split(","):
            continue
        for library in libraries.split(","):
            started = process_time()
            if library == "ours":
                rows = [_ours(net, x, y, f"{name}{b}", norm, seed) for b in wanted]
            else:
                found = [
                    _theirs(peers[library], net, x[i : i + 1], y[i : i + 1], norm, wanted, seed)
                    for i in range(len(y))
                ]
                rows = [torch.tensor([each[b] for each in found]) for b in wanted]
            cells = " | ".join(f"{row.median():.4f}" for row in rows)
            spent = process_time() - started
            print(f"{name} | {norm} | {library} | {cells} | {spent:.0f}", flush=True)


def _ours(net: nn.Module, x: Tensor, y: Tensor, text: str, norm: Norm, seed: int) -> Tensor:
    attack = ATTACKS.build(Spec.parse(text))
    noise = Noise(seed, torch.arange(len(y)))
    return attack_batch(net, x, y, attack, Threat(norm, 0.1), noise).norm


def _theirs(
    peer: Peer, net: nn.Module, x: Tensor, y: Tensor, norm: Norm, budgets: list[int], seed: int
) -> dict[int, float]:
    _seed(seed)
    counted = Counted(net, x, y, 2 if norm == "L2" else torch.inf, budgets)
    try:
        peer(counted, norm)
    except SpentError:
        pass
    except ValueError as error:  # foolbox, where no noise is misclassified
        print(error)
    return {b: counted.at.get(b, counted.nearest) for b in budgets}


@app.command()
def universal(
    run: Run,
    data_dir: DataDir = Path("data"),
    eps: float = 0.15,
    norm: str = "Linf",
    fit: int = 200,
    n: int = 300,
    passes: int = 5,
    seed: int = 0,
) -> None:
    """Print the fooling rates on test images of perturbations fitted to training images."""
    net, test, train = _loaded(run, data_dir)
    x, y = _right(net, test, n)
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:fit]
    known = Tensors(train.images(rows), train.y[rows])
    print(f"{run.name}, {norm} eps {eps:g}, fitted to {fit}, {len(y)} other images: fooled")
    for text in (f"universal:passes={passes},fit={fit}", f"universal-sgd:fit={fit}"):
        started = process_time()
        attack, noise = ATTACKS.build(Spec.parse(text)), Noise(seed, torch.arange(len(y)))
        threat = Threat(norm, eps)
        found = attack_batch(net, x, y, attack, threat, noise, fit_on=known)
        spent = process_time() - started
        print(f"ours {text}: {found.broken.float().mean():.2%}, {spent:.0f} CPU s", flush=True)
    started = process_time()
    v = _art_universal(net, known, eps, norm, passes, seed)
    fooled = net((x + v).clamp(0, 1)).argmax(1) != y
    spent = process_time() - started
    print(
        f"art deepfool: {fooled.float().mean():.2%}, norm {_size(v, norm):.4f}, {spent:.0f} CPU s"
    )


def _art_universal(
    net: nn.Module, known: Tensors, eps: float, norm: str, passes: int, seed: int
) -> Tensor:
    from art.attacks.evasion import UniversalPerturbation

    _seed(seed)
    attack = UniversalPerturbation(
        _art(net, tuple(known.x.shape[1:])),
        attacker="deepfool",
        attacker_params={"max_iter": 10, "nb_grads": 10, "epsilon": 0.02, "verbose": False},
        delta=0.2,
        max_iter=passes,
        eps=eps,
        norm=np.inf if norm == "Linf" else 2,
        verbose=False,
    )
    attack.generate(known.x.numpy())
    return torch.from_numpy(np.asarray(attack.noise)).float()


def _size(v: Tensor, norm: str) -> float:
    return float(torch.linalg.vector_norm(v.flatten(), ord=2 if norm == "L2" else torch.inf))


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _loaded(run: Path, data_dir: Path) -> tuple[nn.Module, Split, Split]:
    record = records.read(run)
    dataset = DATASETS.build(spec_of(record.config["dataset"]))
    net = restore(record, run).eval().requires_grad_(False)
    return net, dataset.load("test", data_dir), dataset.load("train", data_dir)


def _right(net: nn.Module, test: Split, n: int) -> tuple[Tensor, Tensor]:
    few = test.only(slice(0, 4 * n))
    x, y = few.images(slice(None)), few.y
    right = net(x).argmax(1) == y
    return x[right][:n], y[right][:n]


if __name__ == "__main__":
    torch.set_num_threads(1)
    app()
