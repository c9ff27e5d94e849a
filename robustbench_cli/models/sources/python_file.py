"""A user's own model: ``file.py:function`` or ``file.py:Class``."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from robustbench_cli.models.foreign import load_foreign
from robustbench_cli.models.sources import SOURCES, Loaded, LoadRequest, ModelSource
from robustbench_cli.models.weights import load_weights


@SOURCES.register("file")
@dataclass(frozen=True, kw_only=True)
class PythonFile(ModelSource):
    """A function or class of a Python file, which is run: it is the user's own."""

    prefixed: ClassVar[bool] = False
    example: ClassVar[str] = "net.py:make"
    rebuilt: ClassVar[bool] = True

    text: str

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return it for ``path/to/file.py:function``."""
        return cls(text=text) if ".py:" in text or text.endswith(".py") else None

    def load(self, wanted: LoadRequest) -> Loaded:
        """Run the file, call the function without arguments, and fill in the weights."""
        model = load_foreign(self.text, None)
        notes: tuple[str, ...] = ()
        if wanted.weights is not None:
            notes = load_weights(model, wanted.weights, wanted.weights_key)
        # The file decides what the tensors do, the tensors whether it is the same net again.
        source = Path(self.text.rpartition(":")[0]).expanduser().read_bytes()
        return Loaded(model=model, notes=notes, code=hashlib.sha256(source).hexdigest())
