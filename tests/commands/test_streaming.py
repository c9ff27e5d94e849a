"""Images streamed from their files give the verdicts and the weights of those in memory."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustbench_cli.cli import main

NET = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    top, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 80), ("val", 40)):
        for name in ("ant", "bee"):
            (top / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(top / split / name / f"{i}.png")
    (top / "net.py").write_text(NET)
    return top


@pytest.fixture(params=["memory", "streamed"])
def limit(request, monkeypatch):
    """Give the name of a run, with the data in memory or streamed."""
    if request.param == "streamed":
        monkeypatch.setenv("ADVBENCH_DATA_MEMORY", "0")
    return request.param


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("results")


def test_verdicts_and_weights(photos, out, limit):
    data = ["--dataset", f"folder:{photos}", "--out", str(out), "--quiet"]
    model = ["--model", f"{photos / 'net.py'}:make", "--attack", "pgd3", "--eps", "0.1"]
    assert main(["eval", *model, *data, "--name", f"eval-{limit}"]) == 0
    small = ["--model", "strided-cnn:width=2,hidden=4", "--epochs", "1", "--batch-size", "32"]
    assert main(["train", "pgd-at:steps=1", *small, *data, "--name", f"train-{limit}"]) == 0
    if limit == "memory":
        return
    one, two = (np.load(out / f"eval-{each}" / "examples.npz") for each in ("memory", limit))
    for name in one.files:
        assert np.array_equal(one[name], two[name]), name
    assert sorted(one["name"])[:2] == ["val/ant/0.png", "val/ant/1.png"]
    assert all(f"/{'ab'[y]}" in name for name, y in zip(one["name"], one["label"], strict=True))
    runs = [
        json.loads((out / f"{kind}-{each}" / "run.json").read_text())
        for kind in ("eval", "train")
        for each in ("memory", limit)
    ]
    assert runs[0]["dataset"] == runs[1]["dataset"]
    assert "the test images are those in 'val'" in runs[1]["notes"]
    assert runs[2]["dataset"] == runs[3]["dataset"]
    assert runs[2]["checkpoint"] == runs[3]["checkpoint"]
