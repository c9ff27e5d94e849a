"""Whoever set what before: judging is in float32, and afterwards everything is as it was."""

import pytest
import torch
from torch import nn

from robustbench_cli.evaluation.verifier import unchanged_model

BACKENDS = torch.backends
NEW = pytest.mark.skipif(not hasattr(BACKENDS.cudnn, "conv"), reason="torch 2.9 is the first")


def operators():
    if not hasattr(BACKENDS.cudnn, "conv"):
        return []
    cudnn, mkldnn = BACKENDS.cudnn, BACKENDS.mkldnn
    return [BACKENDS.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def old(read):
    try:
        return read()
    except RuntimeError:
        return "refused"


def state():
    """All that torch says about it, its refusals among it."""
    return [each.fp32_precision for each in operators()] + [
        old(torch.get_float32_matmul_precision),
        old(lambda: BACKENDS.cudnn.allow_tf32),
        old(lambda: BACKENDS.cuda.matmul.allow_tf32),
    ]


@pytest.fixture(autouse=True)
def as_torch_comes():
    yield
    if operators():
        BACKENDS.fp32_precision = "none"
        for each in operators():
            each.fp32_precision = "none"
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    "said",
    [
        lambda: None,
        lambda: setattr(BACKENDS.cudnn, "allow_tf32", False),
        lambda: setattr(BACKENDS.cuda.matmul, "allow_tf32", True),
        # On a CPU this one allows bfloat16.
        lambda: torch.set_float32_matmul_precision("medium"),
        *(
            pytest.param(said, marks=NEW)
            for said in (
                lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
                lambda: setattr(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
                lambda: setattr(BACKENDS.cudnn.conv, "fp32_precision", "ieee"),
                lambda: setattr(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
            )
        ),
    ],
)
def test_judging_is_in_float32_whichever_switch_a_model_file_has_set(said):
    said()
    before = state()
    with unchanged_model(nn.Linear(2, 2)):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not BACKENDS.cudnn.allow_tf32
        assert not BACKENDS.cuda.matmul.allow_tf32
        assert [each.fp32_precision for each in operators()] == ["ieee"] * len(operators())
    assert state() == before


def test_an_error_leaves_the_switches_alone_too():
    torch.set_float32_matmul_precision("medium")
    before = state()
    with pytest.raises(ZeroDivisionError), unchanged_model(nn.Linear(2, 2)):
        raise ZeroDivisionError
    assert state() == before
