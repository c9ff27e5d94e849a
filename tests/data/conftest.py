import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors on a busy machine spend their time waiting for the second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data: $ADVBENCH_DATA, or shared/data beside the repository."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    return Path(os.environ.get("ADVBENCH_DATA", beside))


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """The bytes of an image file with random pixels that ``seed`` decides."""

    def make(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", kind: str = "PNG"):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(out, kind)
        return out.getvalue()

    return make


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, whatever this machine has."""

    def unreachable(*_args: object, **_named: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
