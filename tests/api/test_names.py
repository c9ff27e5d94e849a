"""The names of the package: found by everybody, and nothing is imported before its use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import robustbench_cli

ROOT = Path(robustbench_cli.__file__).parents[1]


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, robustbench_cli; dir(robustbench_cli);"
        "heavy = {'torch', 'numpy', 'pydantic', 'typer', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-300:]
    assert "robustbench_cli" in done.stderr
    assert "torch" not in done.stderr


def test_errors_can_be_caught_without_torch():
    code = "import sys; from robustbench_cli import UserError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_public_name_is_there_and_documented():
    assert set(robustbench_cli.__all__) <= set(dir(robustbench_cli))
    for name in robustbench_cli.__all__:
        assert getattr(robustbench_cli, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'evalaute'"):
        _ = robustbench_cli.evalaute


def test_type_checkers_see_the_names_that_are_there():
    """They read the imports, Python the table of modules."""
    imports = {}
    for node in ast.walk(ast.parse(Path(robustbench_cli.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("robustbench_cli"):
            imports |= {alias.name: node.module for alias in node.names}
    assert set(imports) == set(robustbench_cli.__all__)
    for name, module in imports.items():
        assert getattr(robustbench_cli, name).__module__ == module
    assert (Path(robustbench_cli.__file__).parent / "py.typed").is_file()
