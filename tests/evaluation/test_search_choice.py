"""The fastest model that can be vouched for is searched on, and the record says why."""

import itertools

import pytest
import torch
from torch import nn

from robustbench_cli import models
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation import rewritten_models, search_choice
from robustbench_cli.evaluation.search_choice import PassesAhead, chosen_search_model
from robustbench_cli.evaluation.tensors import Tensors

LONG = PassesAhead(batch=16, passes=search_choice.TRIAL_PAYS)
SHORT = PassesAhead(batch=16, passes=search_choice.TRIAL_PAYS - 1)


@pytest.fixture(autouse=True)
def plain_float32(monkeypatch):
    """Whether this processor has bfloat16 must not decide what is tested."""
    for module in (rewritten_models, search_choice):
        monkeypatch.setattr(module, "has_bf16", lambda _where: False)
    monkeypatch.setattr(search_choice, "runs_bf16", lambda _where: False)


@pytest.fixture
def timed(monkeypatch):
    """Let each candidate take the seconds given for what it is; return what was timed."""
    asked = []

    def give(**seconds):
        def one(search, x):
            asked.append((search.about, len(x)))
            return seconds[search.about.replace(", ", "_").replace("-", "_").replace(" ", "_")]

        monkeypatch.setattr(search_choice, "_seconds", one)
        return asked

    return give


def chosen(digits_model, ahead=LONG, **more):
    net, x, y = digits_model
    return chosen_search_model(net, Tensors(x, y), ahead, **more)


@pytest.mark.parametrize(
    ("folded", "laid", "about"),
    [
        (0.5, 0.9, "float32, BatchNorm folded: 2.00 times as fast as itself"),
        (0.9, 0.5, "float32, BatchNorm folded, row-major: 2.00 times as fast as itself"),
        (0.96, 1.3, "float32: the fastest of 3"),
        (2.0, 2.0, "float32: the fastest of 3"),
    ],
)
def test_the_fastest_is_taken_where_it_is_worth_it(folded, laid, about, timed, digits_model):
    timed(float32=1, float32_BatchNorm_folded=folded, float32_BatchNorm_folded_row_major=laid)
    search, notes = chosen(digits_model)
    assert search.about == about
    assert (search.model is digits_model[0]) == (about.startswith("float32:"))
    assert bool(search.uncertain_margin) == (search.model is not digits_model[0])
    assert not notes


def test_models_are_timed_at_the_batch_at_hand_and_the_slow_ones_once(timed, digits_model):
    asked = timed(float32=1, float32_BatchNorm_folded=3, float32_BatchNorm_folded_row_major=1.2)
    chosen(digits_model, PassesAhead(batch=300, passes=LONG.passes))
    assert {size for _, size in asked} == {300}
    assert [about for about, _ in asked].count("float32, BatchNorm folded") == 1
    assert [about for about, _ in asked].count("float32") > 1


def test_a_short_search_is_not_worth_a_trial(timed, digits_model):
    asked = timed()
    search, notes = chosen(digits_model, SHORT)
    assert (search.about, search.model, notes, asked) == ("float32", digits_model[0], [], [])


def test_hardware_made_for_bfloat16_needs_no_trial(digits_model, monkeypatch, timed):
    for module in (rewritten_models, search_choice):
        monkeypatch.setattr(module, "has_bf16", lambda _where: True)
    asked = timed()
    assert chosen(digits_model, SHORT)[0].about == "bfloat16, BatchNorm folded"
    assert not asked


@pytest.mark.parametrize(
    ("narrow", "about"),
    [
        (0.5, "bfloat16, BatchNorm folded: 2.00 times as fast as itself"),
        (0.9, "float32, BatchNorm folded: 1.25 times as fast as itself"),
    ],
)
def test_a_processor_that_computes_in_bfloat16_is_timed(
    narrow, about, timed, digits_model, monkeypatch
):
    monkeypatch.setattr(search_choice, "runs_bf16", lambda _where: True)
    asked = timed(
        float32=1,
        float32_BatchNorm_folded=0.8,
        float32_BatchNorm_folded_row_major=0.9,
        bfloat16_BatchNorm_folded=narrow,
    )
    search, notes = chosen(digits_model)
    assert (search.about, notes) == (about, [])
    assert chosen(digits_model, SHORT)[0].about == "float32"  # too short to find out
    count = len(asked)
    again, _ = chosen(digits_model, before=about)
    assert (again.about, len(asked)) == (about, count)


def test_a_trial_leaves_bfloat16_out_where_it_moves_logits(timed, digits_model, monkeypatch):
    monkeypatch.setattr(search_choice, "runs_bf16", lambda _where: True)
    monkeypatch.setattr(rewritten_models, "MAX_BF16_SHIFT", 1e-9)
    timed(float32=1, float32_BatchNorm_folded=1, float32_BatchNorm_folded_row_major=1)
    search, notes = chosen(digits_model)
    assert search.about == "float32: the fastest of 3"
    assert [note.partition(":")[0] for note in notes] == ["bfloat16 was not used"]


def test_bfloat16_is_tried_on_cpus_that_compute_in_it(monkeypatch):
    cpu = torch.device("cpu")
    for amx, avx in itertools.product((False, True), repeat=2):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx, raising=False
        )
        assert models.has_bf16(cpu) == amx
        assert models.runs_bf16(cpu) == (amx or avx)
    assert not models.runs_bf16(torch.device("meta"))


def test_what_was_chosen_before_goes_on_without_a_trial(digits_model, timed):
    asked = timed()
    for about in (
        "float32, BatchNorm folded: 1.40 times as fast as itself",
        "float32, BatchNorm folded, row-major: 1.20 times as fast as itself",
        "float32: the fastest of 3",
        "float32",
    ):
        for ahead in (SHORT, LONG):
            search, _ = chosen(digits_model, ahead, before=about)
            assert search.about == about
            assert (search.model is digits_model[0]) == ("folded" not in about)
    assert not asked


def test_a_randomised_model_is_used_as_it_is(digits_model, timed):
    asked = timed()
    search, _ = chosen(digits_model, random=True)
    assert (search.model, search.about, asked) == (digits_model[0], "float32", [])


def test_a_row_major_copy_answers_like_the_model_and_leaves_it_alone(digits_model):
    net, x, _ = digits_model
    before = {name: (p.clone(), p.stride()) for name, p in net.named_parameters()}
    exact = search_choice.exact_search_model(net)
    laid = rewritten_models.row_major_search_model(net, exact, x)
    assert laid.about == "float32, row-major"
    torch.testing.assert_close(laid.model(x), net(x), rtol=0, atol=1e-4)
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name][0])
        assert p.stride() == before[name][1]


def test_a_model_that_cannot_be_copied_is_used_as_it_is(digits_model):
    net, x, y = digits_model

    class Lone(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return net(x)

        def __deepcopy__(self, memo):
            raise TypeError("there is only one of me")

    model = Lone().eval().requires_grad_(False)
    search, _ = chosen_search_model(model, Tensors(x, y), LONG)
    assert search.model is model


def test_the_passes_ahead_are_those_of_full_batches():
    threat = Threat("Linf", 0.1)
    stages = [
        stage
        for text in ("pgd20", "fgsm")
        for stage in ATTACKS.build(Spec.parse(text)).stages(threat, 10)
    ]
    one = sum(stage.attack.planned_passes for stage in stages)
    assert PassesAhead.of(stages, 1000, 256) == PassesAhead(batch=256, passes=4 * one)
    assert PassesAhead.of(stages, 100, 256) == PassesAhead(batch=100, passes=one)
    assert PassesAhead.of([], 0, 256).passes == 0


def test_a_real_trial_ends_with_one_of_the_candidates(digits_model):
    search, _ = chosen(digits_model)
    name, _, why = search.about.partition(": ")
    assert name in {
        "float32",
        "float32, BatchNorm folded",
        "float32, BatchNorm folded, row-major",
    }
    assert why == "the fastest of 3" or float(why.split()[0]) > 1 / 0.95 - 0.01
