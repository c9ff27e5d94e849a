"""The pictures of an audit's page: drawn from the record and audit.npz alone."""

from dataclasses import replace

import numpy as np
import pytest

from robustbench_cli.cli.audit_files import write_audit_page
from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.figures import _style
from robustbench_cli.figures._audit_pictures import AUDIT_PICTURES, draw_audit
from robustbench_cli.runs import records
from robustbench_cli.runs.audit_result import AuditResult, BatteryAttack, LossCurve
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.records import Run


def step(label, check, eps, left):
    return BatteryAttack(
        label=label,
        check=check,
        params={"name": "pgd"},
        eps=eps,
        tried=4,
        broken=1,
        left=left,
        same_radius=eps == 0.1,
        forwards=1,
        backwards=1,
        seconds=0.1,
    )


@pytest.fixture
def audit(tmp_path):
    """A finished audit of six images, in the folder of its record."""
    draw = np.random.default_rng(0)
    path = write_arrays(
        tmp_path / "audit.npz",
        {
            "x": draw.random((2, 3, 8, 8), np.float32),
            "x_adv": draw.random((2, 3, 8, 8), np.float32),
            "label": np.array([0, 1]),
            "prediction": np.array([1, 0]),
            "index": np.array([3, 5]),
            "right": np.array([0.0, 0.4]),
            "attack": np.array("square_"),
            "names": np.array(["$cat$", "_dog"]),
        },
    )
    outcome = Outcome(
        params={"name": "pgd"},
        n=6,
        correct=4,
        robust_accuracy=4 / 6,
        forwards=1,
        backwards=1,
        seconds=0.1,
        trust="sound",
    )
    grid = [step(f"pgd@eps={e}", "radius", e, left) for e, left in ((0.05, 0.9), (0.1, 0.6))]
    run = Run(
        id="audit",
        kind="audit",
        status="ok",
        created=records.now(),
        command=["audit"],
        config={"threat": {"norm": "Linf", "eps": 0.1}, "attack": {"pgd": {"name": "pgd"}}},
        subject="net",
        dataset={"name": "digits", "test": 6, "test_sha256": "0"},
        clean_accuracy=1.0,
        worst_case_accuracy=4 / 6,
        n=6,
        attacks={"pgd": outcome},
        audit=AuditResult(
            attacks=[*grid, step("square", "stronger", 0.1, 0.2)],
            curves=[
                LossCurve(
                    label="pgd", images=2, steps=[0, 1], margins=[-0.5, 0.1], broken=[0.0, 0.5]
                )
            ],
            examples=records.filed(path),
        ),
    )
    records.write(run, tmp_path)
    return tmp_path


def test_all_three_are_drawn_and_named_by_the_page(audit):
    pytest.importorskip("matplotlib")
    assert draw_audit(audit, records.read(audit)) == AUDIT_PICTURES
    for file in AUDIT_PICTURES.values():
        assert (audit / file).read_bytes().startswith(b"\x89PNG")
    markdown, html = write_audit_page(audit)
    assert html.read_text().count("data:image/png") == 3
    assert all(file in markdown.read_text() for file in AUDIT_PICTURES.values())


def test_numbers_that_mean_nothing_are_not_drawn(audit):
    pytest.importorskip("matplotlib")
    run = records.read(audit)
    hidden = {label: replace(each, trust="withheld") for label, each in run.attacks.items()}
    assert draw_audit(audit, replace(run, attacks=hidden)) == {}


def test_without_matplotlib_the_page_says_how_to_get_pictures(audit, monkeypatch):
    def missing():
        raise UserError("pictures need matplotlib: pip install -e '.[plot]'")

    monkeypatch.setattr(_style, "needed", missing)
    markdown, html = write_audit_page(audit)
    assert "pip install" in markdown.read_text()
    assert "<img" not in html.read_text()
