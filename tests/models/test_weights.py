"""Loading of weight files: complete, matching, and without running code."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models.weights import digest, load_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


State = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["bare", "state_dict", "model", "parallel", "both"],
)
def test_torch_files(tmp_path: Path, wrap: Callable[[State], object]) -> None:
    given, filled = network(1), network(2)
    torch.save(wrap(given.state_dict()), tmp_path / "w.pt")
    load_weights(filled, tmp_path / "w.pt")
    assert all(torch.equal(v, filled.state_dict()[k]) for k, v in given.state_dict().items())


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
        refuse(tmp_path / name, "never runs code")
    assert not sprung.exists()


@pytest.mark.parametrize("content", [torch.zeros(3), {}, [1], {"a": 1}, {"model": {"a": "b"}}])
def test_a_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    refuse(tmp_path / "w.pt", "holds no state dict")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64, torch.bool])
def test_weights_of_any_type_have_a_digest(kind):
    net = torch.nn.Linear(2, 2)
    net.register_buffer("scalar", torch.tensor(1).to(kind))
    one = digest(net.to(kind) if kind.is_floating_point else net)
    net.scalar.zero_()
    assert digest(net) != one
