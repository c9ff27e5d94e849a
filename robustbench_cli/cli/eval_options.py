"""From options to a request: what ``eval``, ``attack`` and ``detect eval`` have in common."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli.options import given
from robustbench_cli.commands.workspace import Workspace

if TYPE_CHECKING:  # torch comes with it; --help must not wait for that
    from robustbench_cli.commands.eval_request import EvalRequest


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The options of these commands, as they were typed; what only some take may be left out."""

    attacks: list[str]
    suite: str | None = None
    certify: list[str] = field(default_factory=list)
    sigma: str | None = None
    n0: int | None = None
    run: str | None
    checkpoint: str | None = None
    model: str | None = None
    weights: Path | None = None
    dataset: str | None = None
    source: str | None = None
    n: int | None
    norm: str | None
    eps: str | None
    mask: str | None = None
    sweep: str | None = None
    restarts: int | None
    eot: int | None = None
    last_iterate: bool
    precision: str | None = None
    batch_size: int | None
    seed: int | None
    device: str
    data_dir: Path
    out: Path
    name: str | None
    changes: list[str]


def request(asked: EvalOptions, kind: str) -> "EvalRequest":
    """Names resolved, model loaded, configuration validated.

    Raises:
        UserError: something that was asked for is unknown, damaged or makes no sense.
    """
    from robustbench_cli.commands import components
    from robustbench_cli.commands.eval_config import (
        chosen_attacks,
        chosen_certificates,
        resolve_eval_config,
    )
    from robustbench_cli.commands.eval_request import EvalRequest
    from robustbench_cli.commands.load_model import Choice, deployed, find_model

    workspace = Workspace(out=asked.out, data_dir=asked.data_dir, device=asked.device)
    options: dict[str, Any] = given(
        restarts=asked.restarts, eot=asked.eot, last_iterate=asked.last_iterate or None
    )
    certificates = chosen_certificates(asked.certify, given(sigma=asked.sigma, n0=asked.n0))
    proof_only = certificates and not (asked.attacks or asked.suite or options)
    attacks = {} if proof_only else chosen_attacks(asked.attacks, asked.suite, options)
    choice = Choice(
        run=asked.run,
        checkpoint=asked.checkpoint,
        model=asked.model,
        weights=asked.weights,
        dataset=asked.dataset,
    )
    subject, base = find_model(choice, workspace)
    source = (
        find_model(Choice(run=asked.source), workspace)[0] if asked.source is not None else None
    )
    dataset = asked.dataset
    typed = given(
        attack=attacks,
        certify=certificates,
        dataset=components.component_table("dataset", dataset) if dataset is not None else None,
        threat=given(norm=asked.norm, eps=asked.eps, mask=asked.mask) or None,
        source={"id": source.parent, "weights": source.weights} if source else None,
        sweep=asked.sweep,
        n=asked.n,
        precision=asked.precision,
        batch_size=asked.batch_size,
        seed=asked.seed,
    )
    config = resolve_eval_config(base, typed, asked.changes)
    return EvalRequest(
        subject=deployed(subject, config),
        source=source,
        config=config,
        workspace=workspace,
        command=sys.argv[1:],
        name=asked.name,
        kind=kind,  # type: ignore[arg-type]
    )
