"""Normalisations that published models expect: mean and standard deviation of each channel."""

from collections.abc import Mapping
from typing import NamedTuple


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each channel, for pixels in [0, 1]; one value for all, or one
    each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


NORMALIZATIONS: Mapping[str, ChannelStatistics] = {
    "imagenet": ChannelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ChannelStatistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ChannelStatistics((0.1307,), (0.3081,)),
    "signed": ChannelStatistics((0.5,), (0.5,)),
}
"""By the name that ``--normalize`` takes; ``signed`` is 2 x - 1."""
ASSUMED = "images are normalised as the architecture's published weights expect"
"""The beginning of a note about weights of a user's own."""


def assumed_normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Return what is to be said where weights of a user's own are taken to expect what published
    weights of their architecture do."""
    shown = [", ".join(f"{value:g}" for value in part) for part in (mean, std)]
    other = "--normalize or --mean and --std say otherwise"
    return f"{ASSUMED}: mean {shown[0]}, std {shown[1]} ({other})"
