"""The table of the zoo: what each member is, and how its true accuracy is found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ZOO = Path(__file__).parent
Half = Literal["tune", "report"]
Deployment = Literal["batch", "alone", "among", "fresh", "draws"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of the zoo."""

    file: str
    """Its file, relative to this folder."""
    function: str
    half: Half
    """Thresholds are tuned on "tune" and reported on "report"."""
    opening: tuple[str, ...]
    """The differentiable networks to attack in its place: files of ``weights``, or functions of
    ``openings.py``."""
    deployed: Deployment = "batch"
    """How a user meets the model, and so how images are judged: a batch at a time; each image
    alone; among clean images; each by a fresh copy; or as the mean over draws."""
    dataset: str = "digits"
    eps: float = 0.15
    options: tuple[str, ...] = ()
    """What else ``advbench eval`` must be told."""
    refused: bool = False
    """True if ``advbench eval`` does not take the model."""

    @property
    def kind(self) -> str:
        """What is wrong with it, or "honest"."""
        return Path(self.file).stem.replace("_", " ") if self.planted else "honest"

    @property
    def name(self) -> str:
        """The name in tables and in ``truth.json``: file and function."""
        return f"{Path(self.file).stem}:{self.function}"

    @property
    def planted(self) -> bool:
        """True if something is wrong with the model."""
        return self.file.startswith("planted")

    @property
    def factory(self) -> str:
        """The text for ``--model``."""
        return f"{ZOO / self.file}:{self.function}"


_ROWS = """
planted/state        cached_answers            tune    relu-standard      fresh
planted/state        global_answers            report  gelu-standard      fresh
planted/state        closure_answers           tune    elu-standard       fresh
planted/state        bank_answers              report  mlp-standard       fresh
planted/state        patient_answers           tune    relu-standard      fresh
planted/state        turning_gradient          report  leaky-standard     fresh
planted/state        drifting_mean             report  relu-standard      fresh
planted/shattered    scrambled                 tune    relu-standard      batch
planted/shattered    ripple                    tune    gelu-standard      batch
planted/shattered    sawtooth                  report  elu-standard       batch
planted/shattered    winners                   report  kwta-standard+elu-standard+winners batch
planted/shattered    random_signs              report  mlp-standard       batch
planted/saturated    times_ten_thousand        tune    relu-standard      batch
planted/saturated    sharpened                 report  elu-standard       batch
planted/saturated    winner_bonus              tune    gelu-standard      batch
planted/saturated    tanh_logits               report  leaky-standard     batch
planted/saturated    mnist_times_ten_thousand  report  mnist-standard     batch mnist 0.2
planted/flat         rounded_logits            tune    relu-standard      batch
planted/flat         stepped_features          report  mlp-standard       batch
planted/flat         clamped                   tune    elu-standard       batch
planted/flat         tiny                      report  gelu-standard      batch
planted/flat         terraces                  report  leaky-standard     batch
planted/flat         a_hundredth               tune    elu-pgd-at         batch digits 0.1
planted/stochastic   input_noise               tune    relu-standard      draws
planted/stochastic   resize_and_pad            report  resize_and_pad     draws
planted/stochastic   one_of_three              tune    three              draws
planted/stochastic   dropped_features          report  leaky-standard     draws
planted/batch        live_batchnorm            tune    live_batchnorm     alone
planted/batch        standardised_logits       report  mlp-standard       among
planted/batch        centred_logits            tune    elu-standard       alone
planted/batch        attention                 report  gelu-standard      alone
planted/batch        batch_brightness          tune    brightness         alone
planted/batch        batch_maximum             report  softplus-standard  alone
planted/dynamic      surer_once                tune    relu-standard      batch
planted/dynamic      surer_often               report  gelu-standard      batch
planted/dynamic      optimised_input           report  elu-standard       batch
planted/backward     zero                      tune    relu-standard      batch
planted/backward     negated                   report  elu-standard       batch
planted/backward     noisy                     tune    gelu-standard      batch
planted/backward     constant                  report  mlp-standard       batch
planted/backward     not_a_number              tune    relu-standard      batch
planted/backward     infinite                  report  leaky-standard     batch
planted/backward     masked_half               report  softplus-standard  batch
planted/backward     turned_far_away           report  relu-trades        batch
planted/side_path    detached_main             tune    relu-standard      batch
planted/side_path    mnist_detached_main       report  mnist-standard     batch mnist 0.2
planted/side_path    leaky_quantiser           report  gelu-standard      batch
planted/side_path    vote_with_leak            tune    three_votes        batch
planted/side_path    shadow_gradient           report  elu-standard       batch
planted/switched     most_pixels               report  relu-standard+relu-pgd-at batch
planted/switched     softly                    tune    leaky-standard+elu-pgd-at batch
planted/decoy        runner_up                 report  relu-standard      batch
planted/decoy        landscape                 report  elu-standard       batch
planted/decoy        softly                    tune    relu-standard      batch
planted/quantised    eight_levels              tune    eight_levels       batch
planted/quantised    four_levels               report  four_levels        batch
planted/quantised    two_levels                report  two_levels         batch
planted/quantised    rounded_cosines           tune    leaky-standard+rounded_cosines batch
planted/quantised    thermometer               report  mlp-standard       batch
planted/quantised    median                    tune    median             batch
planted/quantised    mnist_four_levels         tune    mnist_four_levels  batch mnist 0.2
planted/coded        counted_by_numpy          tune    counted            batch
planted/coded        scrambled_by_numpy        report  elu-standard       batch
planted/reject       constant_when_unsure      tune    relu-standard      batch
planted/reject       nearest_when_unsure       report  gelu-standard+nearest_mean batch
planted/reject       eleventh_class            report  elu-standard       batch
planted/outputs      probabilities             tune    relu-standard      batch
planted/outputs      percentages               report  elu-standard       batch
planted/outputs      softmax_twice             tune    gelu-standard      batch
planted/outputs      scores                    report  leaky-standard     batch
planted/inputs       expects_signed            tune    relu-signed        batch
planted/inputs       normalised_twice          report  normalised_twice   batch
planted/inputs       expects_bytes             tune    expects_bytes      batch
planted/inputs       channels_reversed         report  channels_reversed  batch cifar 8/255
planted/inputs       untrained                 tune    untrained          batch
planted/inputs       untrained_transformer     report  untrained_transformer batch
planted/train_mode   refuses_eval              tune    mlp-standard       draws
planted/train_mode   functional_batchnorm      report  functional_batchnorm alone
planted/train_mode   functional_dropout        report  relu-standard      draws
honest/digits        relu_standard             tune    relu-standard      batch
honest/digits        relu_pgd_at               report  relu-pgd-at        batch
honest/digits        relu_trades               tune    relu-trades        batch
honest/digits        relu_mixup                report  relu-mixup         batch
honest/digits        relu_fast_at              tune    relu-fast-at       batch
honest/digits        gelu_standard             report  gelu-standard      batch
honest/digits        gelu_pgd_at               tune    gelu-pgd-at        batch
honest/digits        gelu_trades               report  gelu-trades        batch
honest/digits        gelu_smoothing            tune    gelu-smoothing     batch
honest/digits        gelu_free_at              report  gelu-free-at       batch
honest/digits        elu_standard              tune    elu-standard       batch
honest/digits        elu_pgd_at                report  elu-pgd-at         batch
honest/digits        elu_trades                tune    elu-trades         batch
honest/digits        elu_mixup                 report  elu-mixup          batch
honest/digits        elu_mart                  tune    elu-mart           batch
honest/digits        leaky_trades              report  leaky-trades       batch
honest/digits        softplus_pgd_at           tune    softplus-pgd-at    batch
honest/digits        multilayer_perceptron     report  mlp-standard       batch
honest/digits        transformer_standard      tune    vit-standard       batch
honest/digits        transformer_pgd_at        report  vit-pgd-at         batch
honest/variants      times_five                tune    relu-trades        batch
honest/variants      times_ten                 report  gelu-trades        batch
honest/variants      log_probabilities         report  relu-pgd-at        batch
honest/variants      averaged_ensemble         report  three_robust       batch
honest/variants      float64_weights           tune    gelu-pgd-at        batch
honest/variants      normalised_inside         report  signed             batch
honest/variants      train_mode_flag           tune    elu-trades         batch
honest/pictures      mnist_standard            tune    mnist-standard     batch mnist 0.2
honest/pictures      mnist_fast_at             report  mnist-fast-at      batch mnist 0.2
honest/pictures      cifar_standard            report  cifar-standard     batch cifar 8/255
honest/pictures      cifar_fast_at             tune    cifar-fast-at      batch cifar 8/255
"""
"""File, function, half, openings, deployment; then the data set and eps where they are not digits
and the usual one."""

HONEST_EPS = 0.1
"""Radius for honest models of the digits; planted ones have 0.15, at which nothing stands."""
REFUSED = ("standardised_logits",)
"""No answer to a batch of one."""
OPTIONS = {"eleventh_class": ("--reject-class", "10")}
"""Of members that do not always answer."""


def _member(row: str) -> Member:
    file, function, half, opening, deployed, *rest = row.split()
    dataset, eps = rest or ("digits", HONEST_EPS if file.startswith("honest") else 0.15)
    radius = 8 / 255 if eps == "8/255" else float(eps)
    return Member(
        file=f"{file}.py",
        function=function,
        half=half,
        opening=tuple(opening.split("+")),
        deployed=deployed,
        dataset=dataset,
        eps=radius,
        options=OPTIONS.get(function, ()),
        refused=function in REFUSED,
    )


MEMBERS = tuple(_member(row) for row in _ROWS.strip().splitlines())
"""All members."""
