"""Who may import whom; what starting up may cost; what a method's file must say."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import robustbench_cli

PACKAGE = Path(robustbench_cli.__file__).parent
ROOT = PACKAGE.parent
FLOORS = [
    {"core"},
    {"bounds", "config", "detectors", "distributed", "masks", "models", "optim", "runs"},
    {"certificates", "data", "explanations", "input_defenses", "report", "views"},
    {"attacks", "defenses", "generators", "inversion", "metric_learning", "papers", "transforms"},
    {"evaluation"},
    {"audit", "training"},
    {"commands"},
    {"figures"},
    {"cli"},
    {"api"},
]
"""The packages, from the ground up: each imports only from floors below its own."""


def imported(path):
    """Top-level parts of this package that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustbench_cli"):
            _, _, rest = node.module.partition(".")
            names |= {rest.split(".")[0]} if rest else {a.name for a in node.names}
    return names - {"__version__"}


def test_everything_is_in_a_package():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set().union(*FLOORS)
    assert len(packages) <= 29


def test_no_import_runs_upward_or_sideways():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    for path in PACKAGE.glob("*/**/*.py"):
        package = path.relative_to(PACKAGE).parts[0]
        for name in imported(path) - {package}:
            assert floor[name] < floor[package], (
                f"{path.relative_to(PACKAGE)} may not import {name}"
            )


def test_whatever_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *(n for extra in {*extras} - {"dev"} for n in extras[extra])]
    known = {re.match(r"[\w-]+", each)[0] for each in named}
    distributions = {"PIL": "pillow", "robustbench_cli": "advbench", "skimage": "scikit-image"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
            missing = {distributions.get(top, top) for top in tops} - known - {"advbench"}
            assert not missing, f"{path} imports {missing}"


def test_nobody_is_told_to_replace_an_editable_install_by_a_copy():
    pages = [*PACKAGE.rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for path in pages:
        assert not re.search(r"pip install ['\"]?\.\[", path.read_text()), path


def test_no_file_is_too_long():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def code_lines(path):
    """How many lines of a file are code: neither blank nor comment nor docstring."""
    text = path.read_text()
    strings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in strings
        for number, line in enumerate(text.splitlines(), 1)
    )


def test_a_method_is_a_file_of_at_most_eighty_lines_of_code_that_names_its_source():
    for kind in (
        "attacks",
        "certificates",
        "defenses",
        "detectors",
        "explanations",
        "generators",
        "input_defenses",
        "metric_learning",
        "metric_learning/retrieval",
    ):
        for path in (PACKAGE / kind).glob("[!_]*.py"):
            docstring = ast.get_docstring(ast.parse(path.read_text()))
            assert docstring, path
            assert "https://" in docstring or path.stem == "standard", path
            assert code_lines(path) <= 80, path
            assert len(path.read_text().splitlines()) <= 150, path


def test_no_method_is_named_in_a_condition():
    """if/elif on names is how the field's code grew; a member must know for itself."""
    branch = re.compile(r"\b(el)?if .*\b(name|defense|attack|kind)\b *== *['\"]")
    for path in PACKAGE.rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not branch.search(line), f"{path}:{number}: {line.strip()}"


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["report", "--help"]])
def test_starting_up_does_not_import_torch(command):
    code = (
        "import sys; from robustbench_cli.cli import main; main(sys.argv[1:]);"
        "heavy = {'torch', 'matplotlib', 'pandas', 'numpy', 'sklearn', 'rich.progress'};"
        "heavy &= set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_public_functions_and_classes_are_documented():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_a_public_name_is_defined_in_one_module():
    """One meaning, one name: a reader who meets a name twice meets the same thing."""
    places = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = [node] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            names = [target.name for target in targets]
            names += [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.append(node.target.id)
            for name in names:
                if not name.startswith("_"):
                    places.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
