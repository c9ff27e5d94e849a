"""What findings say of each number of an evaluation."""

import pytest

from robustbench_cli.runs.trust import Finding, trust_in, trust_in_clean


@pytest.mark.parametrize(
    ("severity", "clean", "trust"),
    [
        ("error", True, "withheld"),
        ("warning", True, "upper bound"),
        ("info", True, "sound"),
        ("error", False, "sound"),
    ],
)
def test_the_clean_accuracy_is_marked_by_what_concerns_it(severity, clean, trust):
    finding = Finding(check="it", severity=severity, message="", clean=clean)
    assert trust_in_clean([finding], checked=True) == trust
    assert trust_in_clean([], checked=False) == "unchecked"


def test_the_number_of_an_attack_is_marked_by_what_names_it_or_none():
    findings = [Finding(check="it", severity="warning", message="", attacks=["a"])]
    assert trust_in(findings, "a", checked=True) == "upper bound"
    assert trust_in(findings, "b", checked=True) == "sound"
