"""The same random numbers for several passes of a model, from all the usual generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def same_draws() -> Iterator[None]:
    """Seed the generators of torch, numpy and Python; leave them as they were afterwards."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        # Without a GPU torch would write down the stack, for the time that one is there.
        (torch.manual_seed if len(devices) else torch.default_generator.manual_seed)(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
