"""A user's own model: ``path/to/file.py:function``, images in [0, 1] to logits."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from robustbench_cli.core.errors import UserError, hint, in_one_line
from robustbench_cli.models.weights import load_weights


def load_foreign(text: str, weights: Path | None) -> nn.Module:
    """Import the file, call the function without arguments, and fill in ``weights``.

    Args:
        text: ``path/to/file.py:function``.
        weights: a state dict for the model, or None to take the model as it comes.

    Raises:
        UserError: naming whatever was wrong with the file, the function, or what it returned.
    """
    name, colon, function = text.rpartition(":")
    if not colon or not name.endswith(".py") or not function:
        raise UserError(f"model {text!r}: expected path/to/file.py:function")
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"model {text!r}: no such file: {path}")
    with _importing(path.parent):
        module = _import(path)
        factory = getattr(module, function, None)
        if not callable(factory):
            known = [n for n, value in vars(module).items() if _is_own(value, module)]
            choice = hint(function, known) if known else "; it defines none"
            raise UserError(f"model {text!r}: no function {function!r} there{choice}")
        try:
            model = factory()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's code may raise anything, SystemExit too
            raise UserError(f"model {text!r}: {function}() raised {in_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model {text!r}: {function}() must return an nn.Module, got {type(model).__name__}"
        )
    if weights is not None:
        load_weights(model, weights)
    return model


@contextmanager
def _importing(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _import(path: Path) -> ModuleType:
    # A name of its own, so that a user's ``model.py`` hides no module and is hidden by none.
    name = f"advbench_foreign_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # sys.exit() at the end of a script, too
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(f"{path} cannot be imported: {in_one_line(error)}") from error
    return module


def _is_own(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__
