"""The card of an audit's threat model: all that a reader must know to compare the number.

Carlini et al. (2019), https://arxiv.org/abs/1902.06705, section 3, list what must be stated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_cli.config.catalogue import typed
from robustbench_cli.core.threat_text import PIXEL_VALUES, format_size
from robustbench_cli.runs.audit_result import AuditResult
from robustbench_cli.runs.records import Run, data_name

_KNOWLEDGE: Mapping[str, str] = {
    "logits": "the logits",
    "decision": "the predicted class",
    "gradient": "gradients of losses, so architecture and weights",
    "jacobian": "the gradient of every logit, so architecture and weights",
}


def threat_card(run: Run) -> dict[str, str]:
    """Return the threat model of an audit, by what is stated."""
    result, settings = run.audit or AuditResult(), run.settings
    ((label, outcome),) = run.attacks.items()
    threat = settings.threat
    eps = format_size(threat.norm, threat.eps)
    if threat.norm in PIXEL_VALUES:
        eps += f" = {255 * threat.eps:.4g}/255, for pixels in [0, 1]"
    last = _anywhere(outcome.params, "last_iterate")
    knows = [_KNOWLEDGE.get(each, each) for each in result.access]
    test = settings.data.test or 0
    return {
        "norm and radius": f"{threat.norm}, eps {eps}",
        "pixels": f"mask {threat.mask}" if threat.mask else "all of them",
        "goal": f"any wrong class; labels are the true ones, {_rejection(run)}",
        "knowledge": "; ".join(knows) or "not stated",
        "data": f"the first {run.n} of {test} test images of {data_name(run)} "
        f"(sha256 {settings.test_sha256[:12]})",
        "an image counts as broken": "if the last iterate is misclassified"
        if last
        else "if any iterate, the start included, is misclassified in float32 as it is stored",
        "precision": f"searched in {run.search}, judged in float32",
        "accuracy": "per example: the worst case over stages, restarts and targets",
        f"attack {label}": parameters_line(outcome.params),
        **_members(result),
        "seed": str(run.config.get("seed", 0)),
        "adaptive attack": "part of the battery" if result.adaptive else "none",
        "model": f"{run.subject}{settings.behind}, weights {run.weights[:12]}",
        "cost": _cost(run),
        "software": software_line(run.environment),
    }


def _rejection(run: Run) -> str:
    """Return what may be rejected, and what that counts as."""
    if (found := run.rejection) is None:
        return "no rejection"
    return f"an error that {found.label} rejects is none"


def _members(result: AuditResult) -> dict[str, str]:
    """Return the parameters of each member of an ensemble; of a single attack nothing."""
    if len(result.members) < 2:
        return {}
    return {f"its {name}": parameters_line(params) for name, params in result.members.items()}


def parameters_line(params: Mapping[str, Any]) -> str:
    """Return a component's parameters in one line."""
    return ", ".join(f"{key}={typed(value)}" for key, value in params.items())


def _cost(run: Run) -> str:
    """Return the passes and the seconds of all attacks of an audit."""
    own = [*run.attacks.values(), *([run.control] if run.control else [])]
    more = run.audit.attacks if run.audit else []
    forwards = sum(each.forwards for each in own) + sum(each.forwards for each in more)
    backwards = sum(each.backwards for each in own) + sum(each.backwards for each in more)
    return f"{forwards:,} forward and {backwards:,} backward passes, {run.seconds:.0f} s"


def _anywhere(value: object, key: str) -> bool:
    """Return True if a setting of this name is on, however deep."""
    if isinstance(value, Mapping):
        return bool(value.get(key)) or any(_anywhere(each, key) for each in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(_anywhere(each, key) for each in value)
    return False


def software_line(environment: Mapping[str, Any]) -> str:
    """Return versions and device of a record in one line."""
    known = ("advbench", "torch", "python", "device", "commit")
    return ", ".join(f"{key} {environment[key]}" for key in known if key in environment)
