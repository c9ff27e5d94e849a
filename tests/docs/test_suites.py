"""The searched suites keep what they promise on the nets that they were measured on."""

from types import SimpleNamespace

import numpy as np
import pytest

from robustbench_cli import Threat, evaluate


@pytest.fixture(scope="module")
def measured(script):
    """What was measured: the rows, the table of all nets, and where a series stands in it."""
    page = script("suites_table")
    rows = page.kept()
    attacks = list(dict.fromkeys(row.attack for row in rows))
    series = {name: page.suite(name) for name in ("quick", "strong")}
    series["autoattack"] = page.AUTOATTACK
    places = {name: [attacks.index(each) for each in of] for name, of in series.items()}
    return SimpleNamespace(
        rows=rows,
        attacks=attacks,
        table=page.Table.of(rows, attacks),
        honest=page.Table.of([row for row in rows if not row.planted], attacks),
        members=series["quick"],
        **places,
    )


def test_each_net_was_measured_under_every_attack_on_the_same_images(measured):
    table = measured.table
    assert len(table.nets) == len({row.net for row in measured.rows}) >= 60
    assert {row.half for row in measured.rows} == {"tune", "report"}
    for broken, passes in zip(table.broken, table.passes, strict=True):
        assert broken.shape == passes.shape
        assert len(broken) == len(measured.attacks)


def test_strong_is_weaker_than_autoattack_on_no_net_and_costs_no_more(measured):
    table, strong, whole = measured.table, measured.strong, measured.autoattack
    assert (table.left(strong) <= table.left(whole)).all()
    assert table.price(strong) <= table.price(whole)
    assert table.spent(strong) <= table.spent(whole)


def test_quick_agrees_on_honest_nets_at_a_tenth_of_the_passes(measured):
    honest, quick, whole = measured.honest, measured.quick, measured.autoattack
    assert np.abs(honest.left(quick) - honest.left(whole)).max() <= 0.5
    assert honest.price(quick) <= honest.price(whole) / 10


def test_a_series_leaves_no_more_than_any_of_its_members(measured):
    alone = [measured.table.left([place]) for place in measured.quick]
    assert (measured.table.left(measured.quick) <= np.min(alone, axis=0)).all()


def test_the_suite_runs_those_members_and_spends_what_was_measured(digits_model, measured):
    net, x, y = digits_model
    found = evaluate(net, x[:12], y[:12], attacks="quick", threat=Threat("Linf", 0.02))
    (outcome,) = found.record.attacks.values()
    named = [member.partition(":")[0] for member in measured.members]
    assert [member.partition(":")[0] for member in outcome.broken_by] == named
    price, standing = measured.honest.price(measured.quick), outcome.correct
    assert standing
    spent = outcome.forwards + outcome.backwards
    assert 0.95 * price * standing <= spent <= 1.05 * price * 12
