"""A user's own model from a file."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models import Shape
from robustbench_cli.models.foreign import load_foreign

SHAPE = Shape(1, 4, 4, 3, (0.0,), (1.0,))

NET = """
    from torch import nn
    def make():
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
"""


def write(folder: Path, source: str, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(dedent(source))
    return folder / name


def test_a_function_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, NET)
    model = load_foreign(f"{path}:make", None)
    assert model(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert model.training


def test_a_class_will_do_and_the_mode_is_kept(tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(16, 3)
                self.eval()
            def forward(self, x):
                return self.layer(x.flatten(1))
        @dataclass
        class Unrelated:
            x: "int" = 0
    """
    assert not load_foreign(f"{write(tmp_path, source)}:Net", None).training


def test_neighbouring_files_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path, NET, "a_neighbour_of_mine.py")
    path = write(tmp_path, "from a_neighbour_of_mine import make")
    before = list(sys.path)
    assert isinstance(load_foreign(f"{path}:make", None), nn.Module)
    assert sys.path == before
    del sys.modules["a_neighbour_of_mine"]


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    one = write(tmp_path / "one", NET)
    two = write(tmp_path / "two", NET.replace("make", "other"))
    load_foreign(f"{one}:make", None)
    load_foreign(f"{two}:other", None)
    with pytest.raises(UserError, match="no function 'make'"):
        load_foreign(f"{two}:make", None)


def test_weights_are_filled_in(tmp_path: Path) -> None:
    path = write(tmp_path, NET)
    trained = load_foreign(f"{path}:make", None)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(load_foreign(f"{path}:make", tmp_path / "w.pt")(x), trained(x))
    with pytest.raises(UserError, match="no weights at"):
        load_foreign(f"{path}:make", tmp_path / "v.pt")


@pytest.mark.parametrize(
    ("source", "function", "message"),
    [
        (NET, "maek", "no function 'maek' there; did you mean 'make'"),
        ("x = 3", "x", "no function 'x' there; it defines none"),
        ("def f(): return 3", "f", r"f\(\) must return an nn.Module, got int"),
        ("def f(): raise KeyError('a\\nb')", "f", r"f\(\) raised KeyError: 'a"),
        ("def f(needed): return needed", "f", r"f\(\) raised TypeError: "),
        ("def f(): raise SystemExit", "f", r"f\(\) raised SystemExit$"),
        ("def f(): raise BaseException('x')", "f", r"f\(\) raised BaseException: x"),
        ("import sys; sys.exit()", "f", "cannot be imported: SystemExit$"),
        ("def f(:", "f", "cannot be imported: SyntaxError: "),
        ("import there_is_no_such_module", "f", "cannot be imported: ModuleNotFoundError: "),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, source: str, function: str, message: str) -> None:
    path = write(tmp_path, source)
    before = list(sys.path)
    with pytest.raises(UserError, match=message) as caught:
        load_foreign(f"{path}:{function}", None)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere/model.py:make", "no such file: nowhere/model.py"),
        ("model.py", "expected path/to/file.py:function"),
        ("model.py:", "expected path/to/file.py:function"),
        ("model.txt:make", "expected path/to/file.py:function"),
    ],
)
def test_mistakes_in_the_text(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_foreign(text, None)
