"""A lack of memory costs time, never an answer; any other error is what it is."""

import pytest
import torch
from torch import nn

from robustbench_cli.audit import CHECKS, ModelCheck
from robustbench_cli.audit.randomness import randomised
from robustbench_cli.core.registry import Spec
from robustbench_cli.evaluation import rewritten_models
from robustbench_cli.evaluation.out_of_memory import PART, halving, in_parts
from robustbench_cli.evaluation.search_model import exact_search_model
from tests.audit.conftest import probe_of

LACKS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
every_lack = pytest.mark.parametrize("lack", LACKS, ids=lambda lack: str(lack)[:30])


class Small(nn.Module):
    """A model with room for so many images."""

    def __init__(self, net, room, lack=LACKS[0]):
        super().__init__()
        self.net, self._room, self._lack = net, room, lack

    def forward(self, x):
        if len(x) > self._room:
            raise self._lack
        return self.net(x)


@every_lack
def test_parts_get_smaller_until_they_fit(lack):
    x, seen = torch.randn(2 * PART + 3, 4), []

    def work(part):
        seen.append(len(part))
        if len(part) > PART // 4:
            raise lack
        return part * 2

    assert torch.equal(in_parts(work, x), x * 2)
    assert seen[:3] == [PART, PART // 2, PART // 4]
    assert max(seen[2:]) == PART // 4


@every_lack
def test_the_engine_halves_its_slots_for_each_of_them(lack):
    tried, notes = [], []

    def work(_rows, size):
        tried.append(size)
        if size > 2:
            raise lack
        yield from ()

    assert list(halving(work, torch.arange(5), 8, notes.append)) == []
    assert tried == [8, 4, 2]
    assert notes == [f"out of memory: going on with {n} examples at a time" for n in (4, 2)]


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError("no")])
def test_other_errors_and_a_lack_at_one_image_are_told(error):
    def fails(_part):
        raise error

    def lacks(_part):
        raise LACKS[0]

    with pytest.raises(type(error), match=str(error)):
        in_parts(fails, torch.zeros(5))
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(lacks, torch.zeros(5))


def test_nothing_is_one_part():
    assert in_parts(lambda part: part * 2, torch.zeros(0, 3)).shape == (0, 3)


def found_by_checks(model, x, y):
    every = [CHECKS.build(Spec(name)) for name in CHECKS.names()]
    probe = probe_of(model, x, y)
    return [f for each in every if isinstance(each, ModelCheck) for f in each.look(probe)]


@pytest.mark.parametrize("narrow", [False, True])
def test_checks_and_fast_models_fit_where_five_images_do(narrow, digits_model, monkeypatch):
    monkeypatch.setattr(rewritten_models, "has_bf16", lambda _where: narrow)
    net, x, y = digits_model
    x, y = (
        x.repeat(3, 1, 1, 1)[: rewritten_models.COMPARED_IMAGES],
        y.repeat(3)[: rewritten_models.COMPARED_IMAGES],
    )
    small = Small(net, 5)
    assert not randomised(small, x)
    assert found_by_checks(small.eval(), x, y) == []
    fast, _ = rewritten_models.rewritten_search_model(small, x)
    # What is in doubt follows from the same images; the size of parts is worth a rounding.
    spread = float(net(x).std())
    unfolded = (
        exact_search_model(net)
        if not narrow
        else rewritten_models.rewritten_search_model(nn.Sequential(small.net), x)[0]
    )
    assert (
        abs(fast.uncertain_margin - unfolded.uncertain_margin) < (0.05 if narrow else 1e-6) * spread
    )


def test_checks_show_a_model_the_same_parts_whatever_it_has_room_for(digits_model):
    """So that no setting of an evaluation can change what they find."""
    net, x, y = digits_model
    sizes = set()

    class Watched(nn.Module):
        def forward(self, z):
            sizes.add(len(z))
            return net(z)

    x, y = x.repeat(3, 1, 1, 1)[:64], y.repeat(3)[:64]
    found_by_checks(Watched(), x, y)
    rewritten_models.rewritten_search_model(Watched(), x)
    assert max(sizes) == PART
