"""A report starts fast, on many records too."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def benchmark():
    spec = importlib.util.spec_from_file_location("report_benchmark", ROOT / "benchmarks/report.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_thousand_records_cost_a_few_seconds_of_cpu(tmp_path):
    """Measured: 0.8 s.  With a quadratic step, or with torch, it would be far more."""
    report = benchmark()
    assert report.copy_records(tmp_path, 1000) >= 1000
    assert report.cpu_seconds(tmp_path, "--format", "md") < 4


def test_the_shipped_records_are_tabled_without_torch(without_torch):
    """None of them lacks a setting that another has, so no defaults have to be looked up."""
    done = without_torch("report", "--results", str(ROOT / "results" / "reference"))
    assert done.returncode == 0, done.stderr
