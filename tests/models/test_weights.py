"""Loading of weight files: complete, matching, and without running code."""

import argparse
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models.weights import digest, fill_from_file, load_weights, read_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


State = dict[str, torch.Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def jumbled(state: State) -> State:
    return {key: torch.full_like(value, 9) for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"net": state, "acc": np.float64(93.5), "epoch": np.int64(3)},
        lambda state: {"model_state_dict": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict_ema": state, "optimizer": {"state": {0: torch.zeros(1)}}},
        lambda state: {"checkpoint": {"state_dict": prefixed(state, "module.model.")}},
        lambda state: {"model": prefixed(state, "_orig_mod.module."), "ema": jumbled(state)},
        lambda state: {**prefixed(state, "module."), "n_averaged": torch.tensor(7)},
        lambda state: {**state, "best_acc": 93.5, "arch": "mlp"},
    ],
    ids=[
        *("bare", "state_dict", "model", "parallel", "both", "net", "model_state_dict", "ema"),
        *("nested", "ema beside model", "swa", "numbers beside tensors"),
    ],
)
def test_torch_files(tmp_path: Path, wrap: Callable[[State], object]) -> None:
    given, filled = network(1), network(2)
    torch.save(wrap(given.state_dict()), tmp_path / "w.pt")
    load_weights(filled, tmp_path / "w.pt")
    assert all(torch.equal(v, filled.state_dict()[k]) for k, v in given.state_dict().items())


@pytest.mark.parametrize(
    ("inner", "given"),
    [
        ("body._orig_mod.", "body."),
        ("body.module.", "body."),
        ("", "model."),
        ("", "module.model."),
    ],
)
def test_names_inside_and_names_that_lack_a_prefix(tmp_path: Path, inner: str, given: str) -> None:
    """A part of the net was compiled; or the net has a wrapper that the file has not."""
    trained = network(1)
    filled = nn.Module()
    last: nn.Module = filled
    for part in given.split(".")[:-1]:
        last.add_module(part, nn.Module())
        last = last.get_submodule(part)
    for name, part in network(2).named_children():
        last.add_module(name, part)
    torch.save(prefixed(trained.state_dict(), inner), tmp_path / "w.pt")
    load_weights(filled, tmp_path / "w.pt")
    assert all(
        torch.equal(v, filled.state_dict()[given + k]) for k, v in trained.state_dict().items()
    )


def test_a_key_chooses_and_a_choice_is_said(tmp_path: Path) -> None:
    last, mean = network(1).state_dict(), network(2).state_dict()
    torch.save({"model": last, "ema": mean}, tmp_path / "w.pt")
    filled = network(3)
    (said,) = load_weights(filled, tmp_path / "w.pt")
    assert torch.equal(filled.state_dict()["0.weight"], last["0.weight"])
    assert said == "weights under 'model'; the file also has 'ema' (--weights-key)"
    assert load_weights(filled, tmp_path / "w.pt", "ema") == ()
    assert torch.equal(filled.state_dict()["0.weight"], mean["0.weight"])


def test_several_state_dicts_want_a_key(tmp_path: Path) -> None:
    torch.save(
        {"last": {"state_dict": network(1).state_dict()}, "best": network(2).state_dict()},
        tmp_path / "w.pt",
    )
    text = refuse(tmp_path / "w.pt", "choose one by --weights-key")
    assert "'last.state_dict', 'best'" in text
    load_weights(network(), tmp_path / "w.pt", "last.state_dict")
    with pytest.raises(UserError, match=r"--weights-key lst: .*there are 'last.state_dict'"):
        load_weights(network(), tmp_path / "w.pt", "lst")


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.tensor(0.5))
        self.register_buffer("sigma", torch.tensor(0.5))
        self.net = nn.Linear(3, 2)


def test_a_missing_normalisation_is_named(tmp_path: Path) -> None:
    given = {"net.weight": torch.zeros(2, 3), "net.bias": torch.zeros(2)}
    torch.save(given, tmp_path / "w.pt")
    text = refuse(tmp_path / "w.pt", "only the normalisation", Normalised())
    assert "'mu', 'sigma'" in text
    said = fill_from_file(Normalised(), read_weights(tmp_path / "w.pt"), own=("mu", "sigma"))
    assert said == ("'mu', 'sigma' not in the weights file: the architecture's own values",)


def test_bfloat16_weights_fill_a_float32_model(tmp_path: Path) -> None:
    given, filled = network(1), network(2)
    torch.save(given.bfloat16().state_dict(), tmp_path / "w.pt")
    load_weights(filled, tmp_path / "w.pt")
    assert filled[0].weight.dtype == torch.float32
    assert torch.equal(filled[0].weight, given[0].weight.float())


def test_a_torchscript_file_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network()), tmp_path / "w.pt")
    refuse(tmp_path / "w.pt", "is a TorchScript program.*--model")


def test_safetensors(tmp_path: Path) -> None:
    given, filled = network(1), network(2)
    safetensors.torch.save_file(given.state_dict(), tmp_path / "w.safetensors")
    load_weights(filled, tmp_path / "w.safetensors")
    assert all(torch.equal(v, filled.state_dict()[k]) for k, v in given.state_dict().items())


def test_a_model_may_have_a_part_called_model(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Parameter(torch.randn(3))

    given, filled = Odd(), Odd()
    torch.save(given.state_dict(), tmp_path / "w.pt")
    load_weights(filled, tmp_path / "w.pt")
    assert torch.equal(given.model, filled.model)


def refuse(path: Path, message: str, model: nn.Module | None = None) -> str:
    model = model or network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        load_weights(model, path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return text


def test_every_mismatch_is_named(tmp_path: Path) -> None:
    state = network().state_dict()
    state["extra"] = state.pop("0.bias")
    state["2.weight"] = torch.zeros(5, 4)
    torch.save(state, tmp_path / "w.pt")
    text = refuse(tmp_path / "w.pt", "does not fit")
    assert "'0.bias' is missing" in text
    assert "'extra' is unexpected" in text
    assert "'2.weight' has shape (5, 4), expected (2, 4)" in text


def test_at_most_three_mismatches_are_shown(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    text = refuse(tmp_path / "w.pt", "does not fit")
    assert text.count(" is ") == 3
    assert text.endswith("; 7 more")


def test_an_absent_file(tmp_path: Path) -> None:
    refuse(tmp_path / "none.pt", "no weights at")


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04 not really", b"text"])
def test_a_damaged_file(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    refuse(path, "is damaged.*never runs code")


def test_a_truncated_file(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: len(whole) // 2])
    refuse(tmp_path / "w.pt", "is damaged")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"state_dict": network().state_dict(), "x": Trap(sprung)}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Trap(sprung)))
    torch.save(network(), tmp_path / "module.pt")
    for name in ("zip.pt", "bare.pt", "module.pt"):
        text = refuse(tmp_path / name, "never runs code")
    assert "it needs torch.nn.modules.container.Sequential" in text
    assert not sprung.exists()


@pytest.mark.parametrize("content", [torch.zeros(3), {}, [1], {"a": 1}, {"model": {"a": "b"}}])
def test_a_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    text = refuse(tmp_path / "w.pt", "holds no state dict")
    assert "its keys are" in text or "it holds" in text


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64, torch.bool])
def test_weights_of_any_type_have_a_digest(kind):
    net = torch.nn.Linear(2, 2)
    net.register_buffer("scalar", torch.tensor(1).to(kind))
    one = digest(net.to(kind) if kind.is_floating_point else net)
    net.scalar.zero_()
    assert digest(net) != one
