"""Tables of measures: seeds are joined, settings told apart, notes kept."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import stdev

import pytest

from robustbench_cli.cli.formats import TABLE_FORMATS
from robustbench_cli.cli.measures import measures_page
from robustbench_cli.report.measure_table import measure_tables
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.records import Run


def run_of(seed=0, value=0.5, **more):
    settings = {"expose": {"gradient": {"name": "gradient"}}, "width": 64, "seed": seed}
    usual = {
        "id": f"run-{seed}-{more.get('weights', '')}",
        "kind": "invert",
        "status": "ok",
        "created": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=seed),
        "command": [],
        "config": {"dataset": {"name": "digits"}, "invert": settings},
        "seed": seed,
        "subject": "trades",
        "dataset": {"name": "digits", "test_sha256": "same"},
        "weights": "one",
        "n": 40,
        "measures": [
            Measure(of="prediction", name="MSE", value=value, n=40),
            Measure(of="prediction", name="victim recognises", value=value, n=40, unit="%"),
        ],
    }
    return Run(**{**usual, **more})


def lines(runs):
    (table,) = measure_tables(runs, "invert")
    return {(line.subject, line.of): line for line in table.lines}


def test_one_run():
    line = lines([run_of()])["trades", "prediction"]
    assert {name: cell.text for name, cell in line.cells.items()} == {
        "MSE": "0.5000",
        "victim recognises": "50.00",
    }


def test_the_latest_of_a_repeated_measurement_counts():
    later = run_of(value=0.25)
    assert lines([run_of(), later])["trades", "prediction"].cells["MSE"].values == (0.25,)


def test_seeds_are_joined():
    runs = [run_of(seed, value, weights="one") for seed, value in [(0, 0.1), (1, 0.2), (2, 0.4)]]
    runs = [replace(run, config={**run.config, "seed": run.seed}) for run in runs]
    line = lines(runs)["trades", "prediction"]
    assert line.seeds == (0, 1, 2)
    assert line.cells["MSE"].text == f"0.2333 ± {stdev([0.1, 0.2, 0.4]):.4f}"


def test_other_ways_of_measuring_are_told_apart():
    other = run_of(1, 0.3)
    wider = {**other.config["invert"], "width": 128}
    other = replace(other, config={**other.config, "invert": wider})
    assert {*lines([run_of(), other])} == {
        ("trades (width=64)", "prediction"),
        ("trades (width=128)", "prediction"),
    }


def test_other_exposures_share_a_model():
    other = run_of(value=0.3)
    exposed = {**other.config["invert"], "expose": {"grad-cam": {"name": "grad-cam"}}}
    other = replace(
        other,
        config={**other.config, "invert": exposed},
        measures=[Measure(of="prediction+grad-cam", name="MSE", value=0.3, n=40)],
    )
    assert {*lines([run_of(), other])} == {
        ("trades", "prediction"),
        ("trades", "prediction+grad-cam"),
    }


def test_other_data_are_another_table():
    other = run_of(dataset={"name": "digits", "test_sha256": "other"})
    assert len(measure_tables([run_of(), other], "invert")) == 2
    assert len(measure_tables([run_of(), run_of(n=20)], "invert")) == 2


def test_unfinished_runs_and_other_kinds_are_left_out():
    assert measure_tables([run_of(status="failed"), run_of(kind="explain")], "invert") == []


def test_what_means_nothing_is_not_printed_and_the_reason_is():
    void = [Measure(of="uniform", name="energy in mask", value=None, n=40, note="no mask is known")]
    marked = [Measure(of="gradient", name="energy in mask", value=0.5, n=40, note="two images")]
    page = measures_page(measure_tables([run_of(measures=void + marked)], "invert"))
    text = TABLE_FORMATS["terminal"](page)
    assert "n/a" in text
    assert "0.5000 *" in text
    assert "n/a trades, uniform, energy in mask: no mask is known" in text
    assert "* trades, gradient, energy in mask: two images" in text
    for form in TABLE_FORMATS:
        assert TABLE_FORMATS[form](page)


def test_a_share_above_one_is_a_damaged_record(tmp_path):
    bad = [Measure(of="prediction", name="victim recognises", value=1.5, n=40, unit="%")]
    records.write(run_of(measures=bad), tmp_path)
    with pytest.raises(records.DamagedRecord, match="is no share"):
        records.read(tmp_path)


def test_maps_of_other_classes_are_told_apart():
    """The settings of explain have no section of their own."""

    def explained(target):
        config = {"dataset": {"name": "digits"}, "seed": 0, "n": 40, "target": target, "steps": 32}
        return run_of(kind="explain", config=config, id=f"run-{target}")

    (table,) = measure_tables([explained("predicted"), explained("label")], "explain")
    assert {line.subject for line in table.lines} == {
        "trades (target=predicted)",
        "trades (target=label)",
    }
