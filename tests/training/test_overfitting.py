"""When an epoch counts as catastrophic overfitting."""

import pytest

from robustbench_cli.training.overfitting import blind, collapse


def rows(*pairs):
    return [{"train_robust": robust, "batch_adv": fooled} for robust, fooled in pairs]


def test_a_fall_that_the_training_attack_does_not_see_is_told_with_its_numbers():
    said = collapse(rows((0.5, 0.55), (0.61, 0.7), (0.05, 0.93)), 0.2)
    assert said == (
        "catastrophic overfitting by epoch 3: since epoch 2 accuracy on training images fell from "
        "61.0% to 5.0% under PGD-10 and rose from 70.0% to 93.0% under the training attack"
    )


def test_a_fall_over_several_epochs_is_told_once():
    history = rows((0.6, 0.6), (0.5, 0.7), (0.41, 0.75), (0.35, 0.8), (0.5, 0.9), (0.0, 0.95))
    said = [collapse(history[: i + 1], 0.2) for i in range(len(history))]
    assert [bool(text) for text in said] == [False, False, False, True, False, False]
    assert "by epoch 4: since epoch 1" in said[3]


@pytest.mark.parametrize(
    ("history", "by"),
    [
        ([], 0.2),
        (rows((0.6, 0.7)), 0.2),  # nothing to compare with
        (rows((0.5, 0.6), (0.3, 0.7)), 0.2),  # exactly as far
        (rows((0.5, 0.6), (0.25, 0.6)), 0.2),  # the training attack sees no gain
        (rows((0.5, 0.6), (0.2, 0.4)), 0.2),  # both fall: the rate is too high
        (rows((0.5, 0.6), (0.6, 0.7)), 0.2),
        (rows((0.5, 0.6), (0.2, 0.7)), 0.4),
        (rows((None, 0.6), (None, 0.7)), 0.2),  # no probe
        (rows((0.6, None), (0.1, None)), 0.2),  # no adversarial pass
    ],
)
def test_nothing_else_counts(history, by):
    assert collapse(history, by) is None


def test_a_run_that_was_never_robust_is_told_in_the_end():
    assert blind(rows((0.01, 0.3), (0.004, 0.6)), 0.2) == (
        "it is robust to its own attack only: in the end accuracy on training images is 60.0% "
        "under the training attack and 0.4% under PGD-10"
    )


@pytest.mark.parametrize(
    "history",
    [
        [],
        rows((0.01, 0.6), (0.5, 0.6)),  # it was so on the way: a radius may have grown
        rows((0.061, 0.6)),  # more than a tenth
        rows((0.0, 0.2)),  # next to nothing under either
        rows((None, 0.6)),  # no probe
        rows((0.0, 0.6), (None, None)),  # no probe in the end
    ],
)
def test_other_runs_are_not(history):
    assert blind(history, 0.2) is None
