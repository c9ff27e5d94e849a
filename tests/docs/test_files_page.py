"""files.md describes every field of a record, and its examples are files that are understood."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from robustbench_cli.commands import study_file, study_jobs
from robustbench_cli.config.presets import load_preset
from robustbench_cli.config.schema import TrainConfig, Training, validated
from robustbench_cli.runs import audit_result, budget_spent, outcomes, records, trust

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
RECORDS = [
    value
    for module in (records, outcomes, trust, audit_result, budget_spent)
    for value in vars(module).values()
    if dataclasses.is_dataclass(value)
    and value.__module__ == module.__name__
    and value.__dataclass_params__.frozen
]
"""What run.json is made of; the recorder that writes it is not frozen."""
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def described(section):
    """The names in the first column of a section's table."""
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_records_are_found():
    assert {"Run", "Outcome", "Checkpoint", "Finding"} <= {kind.__name__ for kind in RECORDS}


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_record_is_described_once(kind):
    _, _, rest = PAGE.partition(f"\n### {kind.__name__}\n")
    assert rest, f"files.md has no section {kind.__name__}"
    section = re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]
    assert described(section) == [each.name for each in dataclasses.fields(kind)]


def test_every_setting_of_a_training_is_described():
    _, _, rest = PAGE.partition("The `[train]` section:")
    section = rest.partition("\n## ")[0]
    assert described(section) == [each.name for each in dataclasses.fields(Training)]


def test_the_history_of_a_record_has_the_columns_that_are_described():
    folder = Path(__file__).parents[2] / "results/reference/at-family-digits/trades-s0"
    _, _, rest = PAGE.partition("A row of `history` has")
    assert {*re.findall(r"`(\w+)`", rest.partition("\n\n")[0])} >= {
        *records.read(folder).history[0]
    }


def test_the_example_of_a_preset_is_a_recipe(tmp_path):
    (text,) = (text for text in EXAMPLES if "[train]" in text)
    (tmp_path / "mine.toml").write_text(text)
    config = validated(TrainConfig, load_preset(str(tmp_path / "mine.toml")))
    assert [*config.defense] == ["trades", "awp"]
    assert config.defense["trades"]["beta"] == 3.0
    assert config.defense["trades"]["steps"] == 40  # of its base
    assert config.train.epochs == 20


def test_the_example_of_a_suite_is_one_that_is_shipped():
    (text,) = (text for text in EXAMPLES if "[attack" in text)
    suite = Path(__file__).parents[2] / "presets/suites/paper.toml"
    assert tomllib.loads(text) == tomllib.loads(suite.read_text())


def test_the_example_of_a_study_is_understood(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "study.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    found = study_file.load_study(str(tmp_path / "mine.toml"))
    terms = study_jobs.SharedOptions(
        common={"--out": "results"}, takes=lambda words: {"--out", "--seed"}
    )
    jobs = {job.id: job for job in study_jobs.study_jobs(found, "digits", terms)}
    assert jobs["student-s1"].after == {"pgd-at-s1"}
    assert "late-s1" in jobs["last-s1"].commands[0].words
    assert len(jobs) == 3 * (3 + 2 + 1)
