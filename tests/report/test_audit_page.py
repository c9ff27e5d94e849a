"""The page of an audit: what it says of each kind of result, in Markdown and in HTML."""

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from robustbench_cli.report.audit_html import as_html
from robustbench_cli.report.audit_page import MEANINGLESS, NO_PICTURES, as_markdown, audit_page
from robustbench_cli.runs.audit_result import AuditResult, BatteryAttack, BatteryMeasure, Claim
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.records import Run
from robustbench_cli.runs.trust import Checked, Finding

CLAIM = Claim(
    accuracy=0.55,
    attack="pgd20",
    eps=8 / 255,
    norm="Linf",
    grade="overstated",
    sentence="the claim of 55 % under pgd20 at Linf 8/255 is overstated by 20.0 points",
    measured=0.54,
    low=0.5,
    high=0.6,
    points=20.0,
    found_by="autoattack",
    left=0.35,
)
STRONGER = BatteryAttack(
    label="autoattack",
    check="stronger",
    params={"name": "autoattack"},
    eps=8 / 255,
    tried=54,
    broken=19,
    left=0.35,
    same_radius=True,
    forwards=1,
    backwards=1,
    seconds=1.0,
)
FINDING = Finding(check="secant", severity="warning", message="gradients <script>mislead</script>")


def audited(trust="upper bound", claim=CLAIM, findings=(FINDING,), **more):
    outcome = Outcome(
        params={"name": "pgd", "steps": 20, "last_iterate": False},
        n=100,
        correct=54,
        robust_accuracy=0.54,
        forwards=1,
        backwards=1,
        seconds=1.0,
        trust=trust,
    )
    result = AuditResult(
        attacks=[STRONGER],
        measures=[BatteryMeasure(check="radius", text="it falls | to zero", passed=True)],
        claim=claim,
        access=["gradient"],
        members={"pgd": outcome.params},
    )
    return Run(
        id="audit-net",
        kind="audit",
        status="ok",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        command=["audit"],
        config={
            "threat": {"norm": "Linf", "eps": 8 / 255},
            "attack": {"pgd20": outcome.params},
            "model": {"name": "net"},
            "dataset": {"name": "cifar10"},
            "seed": 7,
        },
        subject="net",
        dataset={"name": "cifar10", "test": 10000, "test_sha256": "0123456789abcdef"},
        weights="fedcba9876543210",
        search="float32",
        clean_accuracy=0.9,
        worst_case_accuracy=0.54,
        n=100,
        attacks={"pgd20": outcome},
        findings=list(findings),
        checked=Checked(names=["secant"], images=1, forwards=1, backwards=1, seconds=0.1),
        clean_trust="sound",
        audit=replace(result, **more),
    )


class Reader(HTMLParser):
    """Tags that are opened, and text, of a page that is well formed."""

    void = frozenset({"meta", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page, folder):
    reader = Reader()
    reader.feed(as_html(page, folder))
    assert not reader.open
    return reader.seen, " ".join(reader.text)


def test_the_page_holds_verdict_table_findings_and_card(tmp_path):
    page = audit_page(audited(), {})
    _, html = read(page, tmp_path)
    for text in (as_markdown(page), html):
        assert "verstated by 20.0 points" in text
        assert "autoattack" in text
        assert "broke 19 of 54" in text
        assert "≤54.00%" in text
        assert "Linf, eps 8/255 = 8/255" in text
        assert "the first 100 of 10000 test images of cifar10" in text
        assert "steps=20" in text
        assert "gradients of losses" in text
        assert NO_PICTURES.split(":")[0] in text


def test_what_a_record_says_is_text_and_no_markup(tmp_path):
    page = audit_page(audited(), {})
    tags, html = read(page, tmp_path)
    assert "script" not in tags
    assert "gradients <script>mislead</script>" in html
    markdown = as_markdown(page)
    assert "<script>" not in markdown
    assert "it falls \\| to zero" in markdown


def test_pictures_are_inside_the_html_and_beside_the_markdown(tmp_path):
    header = b"\x89PNG\r\n\x1a\n" + bytes(8) + (640).to_bytes(4) + (100).to_bytes(4)
    (tmp_path / "r.png").write_bytes(header)
    page = audit_page(audited(), {"radius": "r.png"})
    html = as_html(page, tmp_path)
    assert 'width="320"' in html
    assert "data:image/png;base64," in html
    assert "](r.png)" in as_markdown(page)
    assert not page.missing


def test_a_model_that_calls_for_an_adaptive_attack_says_so_unless_there_was_one():
    assert "Non-adaptive upper bound" in " ".join(audit_page(audited(), {}).notes)
    assert not audit_page(audited(adaptive=True), {}).notes
    assert not audit_page(audited(trust="sound", findings=(), claim=None), {}).notes
    hint = Finding(check="randomness", severity="info", message="random")
    drawn = audit_page(audited(trust="sound", findings=(hint,), claim=None), {})
    assert "Non-adaptive upper bound" in " ".join(drawn.notes)


@pytest.mark.parametrize(
    ("trust", "word", "tone"),
    [
        ("sound", "is sound", "good"),
        ("upper bound", "upper bound", "bad"),
        ("withheld", "means nothing", "bad"),
        ("unchecked", "not checked", "doubtful"),
    ],
)
def test_without_a_claim_the_verdict_is_the_trust(trust, word, tone):
    error = replace(FINDING, severity="error", message="it remembers")
    found = (error,) if trust == "withheld" else ()
    page = audit_page(audited(trust=trust, claim=None, findings=found), {})
    assert word in page.verdict
    assert page.tone == tone


def test_numbers_that_mean_nothing_are_on_no_page(tmp_path):
    error = replace(FINDING, severity="error", message="it remembers")
    run = audited(trust="withheld", claim=None, findings=(error,))
    page = audit_page(run, {})
    assert page.missing == MEANINGLESS
    _, html = read(page, tmp_path)
    for text in (as_markdown(page), html):
        assert "54.00" not in text
        assert "35.00" not in text


def test_the_gravest_findings_come_first():
    note = replace(FINDING, severity="info", message="a note")
    error = replace(FINDING, severity="error", message="an error")
    page = audit_page(audited(findings=(note, FINDING, error)), {})
    assert [severity for severity, *_ in page.findings] == ["error", "warning", "info"]


def test_few_images_are_called_few():
    page = audit_page(replace(audited("sound", None, ()), n=100), {})
    assert not any("95 %" in note for note in page.notes)
    run = audited("sound", None, ())
    (outcome,) = run.attacks.values()
    few = replace(run, attacks={"pgd20": replace(outcome, n=10, correct=5)}, n=10)
    assert any("Of 10 images" in note for note in audit_page(few, {}).notes)
