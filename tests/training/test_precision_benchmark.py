"""The benchmark of bfloat16 in the inner attack of TRADES."""

import importlib.util
import sys
from pathlib import Path

import pytest

from robustbench_cli.core.threat import Threat

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    place = ROOT / "benchmarks" / "precision.py"
    spec = importlib.util.spec_from_file_location("precision_benchmark", place)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_three_ways_are_told_apart(benchmark, digits_model):
    net, x, _ = digits_model
    found = {
        way: benchmark.climbed(net, x, Threat("Linf", 0.1), way)
        for way in ("float32", "bf16", "bf16 throughout")
    }
    assert found["float32"].signs == 1
    assert found["bf16"].signs > 0.95
    assert found["bf16 throughout"].signs < 0.9
    assert found["bf16"].first == pytest.approx(found["float32"].first, rel=0.02)
    assert found["bf16"].last == pytest.approx(found["float32"].last, rel=0.1)
    assert all(each.last > each.first > 0 for each in found.values())
    assert not net.low_precision
