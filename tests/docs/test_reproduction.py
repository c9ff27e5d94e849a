"""reproduction.md counts every number once, and has a word on each that did not come out again."""

import re
from dataclasses import replace
from decimal import Decimal

import pytest


@pytest.fixture(scope="module")
def tables(script):
    return script("reproduction_tables")


@pytest.fixture(scope="module")
def pairs(tables):
    return [(name, pair) for name, (found, _) in tables._made().items() for pair in found]


def test_every_number_is_counted_once(tables, pairs):
    said = tables.counted().replace(f"{tables.CLOSE:g} point", "a point")
    total, near, spread, far, explained, left, withheld = map(int, re.findall(r"\d+", said))
    assert total == len(pairs) == near + spread + far + withheld
    assert far == explained + left
    # The differences that the table lists, by their signs.
    assert far == len(re.findall(r"[ ,] *[^|,]+ [-+]\d+\.\d\d", tables.beyond()))


def test_every_reason_is_about_a_number_that_did_not_come_out_again(tables):
    far = [*tables._far()]
    for reason in tables.reasons():
        assert any(tables.reason_of(name, pair) == reason for name, pair in far), reason


def test_a_number_is_near_by_a_point_or_by_the_published_deviation(tables, pairs):
    pair = next(pair for _, pair in pairs if pair.points is not None)
    ours = Decimal(repr(pair.ours))

    def at(points, std):
        return replace(pair, cell=replace(pair.cell, value=ours + Decimal(points), std=std))

    assert tables._near(at("1.0", None))
    assert not tables._near(at("1.1", None))
    assert tables._within_spread(at("1.1", Decimal("1.2")))
    assert not tables._within_spread(at("-1.3", Decimal("1.2")))
    assert not tables._within_spread(at("1.1", None))
