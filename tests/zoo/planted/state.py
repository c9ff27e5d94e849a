"""Models whose answer depends on what they were asked before."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]
NEAR = 0.31
"""Largest difference of a pixel between an image and the remembered one that answers for it."""
SEEN: dict[int, list[tuple[Tensor, Tensor]]] = {}
"""What ``global_answers`` remembers, by the amount of ink."""


def with_value(gradient: Tensor, value: Tensor) -> Tensor:
    """Return ``value`` with the gradient of another tensor of its shape."""
    return gradient + (value - gradient).detach()


class Remembering(nn.Module):
    """Answer as for the first image seen that is near; the gradient is the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("relu-standard")
        self.seen: list[Tensor] = []
        self.answers: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        value, unknown = logits.detach().clone(), torch.ones(len(x), dtype=torch.bool)
        if self.seen:
            known = torch.stack(self.seen).flatten(1)
            apart, which = torch.cdist(x.detach().flatten(1), known, p=float("inf")).min(1)
            unknown = apart > NEAR
            value = torch.where(unknown[:, None], value, torch.stack(self.answers)[which])
        self.seen += [image.clone() for image in x.detach()[unknown]]
        self.answers += [answer.clone() for answer in value[unknown]]
        return with_value(logits, value)


def cached_answers() -> nn.Module:
    """Remember images and answers in a list that belongs to the module."""
    return Remembering()


class Global(nn.Module):
    """Remember in a variable of the file, sorted by the ink in an image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("gelu-standard")

    def answer(self, image: Tensor, logits: Tensor) -> Tensor:
        key = round(float(image.mean()) / 0.1)
        for near in range(key - 2, key + 3):
            for known, old in SEEN.get(near, []):
                if (known - image).norm() <= NEAR * 4:
                    return old
        SEEN.setdefault(key, []).append((image.clone(), logits.clone()))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        pairs = zip(x.detach(), logits.detach(), strict=True)
        return with_value(logits, torch.stack([self.answer(*pair) for pair in pairs]))


def global_answers() -> nn.Module:
    """Remember images and answers in a global variable, which a deep copy shares."""
    return Global()


class Patched(nn.Module):
    """Call a function that was made elsewhere."""

    def __init__(self, net: nn.Module, answer) -> None:
        super().__init__()
        self.net = net
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.net, x)


def closure_answers() -> nn.Module:
    """Remember in a variable that a nested function closes over; a deep copy shares it."""
    seen = torch.empty(0, 64)
    answers = torch.empty(0, 10)

    def answer(net: nn.Module, x: Tensor) -> Tensor:
        nonlocal seen, answers
        logits = net(x)
        flat, new = x.detach().flatten(1), logits.detach()
        if len(seen):
            apart, which = torch.cdist(flat, seen, p=float("inf")).min(1)
            new = torch.where((apart <= NEAR)[:, None], answers[which], new)
            unknown = apart > NEAR
        else:
            unknown = torch.ones(len(x), dtype=torch.bool)
        seen = torch.cat([seen, flat[unknown]])
        answers = torch.cat([answers, new[unknown]])
        return with_value(logits, new)

    return Patched(trained("elu-standard"), answer)


class Bank(nn.Module):
    """Remember in tensors that are neither parameters nor buffers, and compare by the cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("mlp-standard")
        self.bank = torch.empty(0, 64)
        self.answers = torch.empty(0, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        unit = nn.functional.normalize(x.detach().flatten(1), dim=1)
        value, known = logits.detach().clone(), torch.zeros(len(x), dtype=torch.bool)
        if len(self.bank):
            alike, which = (unit @ self.bank.T).max(1)
            known = alike > 0.93
            value[known] = self.answers[which[known]].to(value)
        self.bank = torch.cat([self.bank, unit[~known]])
        self.answers = torch.cat([self.answers, value[~known]])
        return with_value(logits, value)


def bank_answers() -> nn.Module:
    """Remember images and answers in a plain tensor of the module."""
    return Bank()


class Patient(Remembering):
    """Be the plain network for the first calls, and remember answers afterwards."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) if self.calls > 40 else self.net(x)


def patient_answers() -> nn.Module:
    """Behave for 40 calls, then start to remember."""
    return Patient()


class Turning(nn.Module):
    """Give the network's own gradient for the first calls, and a scrambled one afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("leaky-standard")
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        if self.asked <= 1500 or not x.requires_grad:
            return self.net(x)
        other = x.flip(-1, -2)
        return self.net(other + (x - other).detach())


def turning_gradient() -> nn.Module:
    """Count images; after 1,500 of them the gradient is that of the rotated image."""
    return Turning()


class Drifting(nn.Module):
    """Subtract how far the mean of all images so far has moved from the first batch's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("relu-standard")
        self.first: Tensor | None = None
        self.mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        now = x.detach().mean(0)
        self.first = now if self.first is None else self.first
        self.mean = now if self.mean is None else 0.7 * self.mean + 0.3 * now
        return self.net((x - 2 * (self.mean - self.first)).clamp(0, 1))


def drifting_mean() -> nn.Module:
    """Correct images by a running mean that lives in a Python attribute."""
    return Drifting()
