"""Small nets of every kind that bounds must pass through, with one image size for all."""

import torch
from torch import Tensor, nn

from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Shape

SIDE = 8
SHAPE = Shape(1, SIDE, SIDE, 4, (0.3,), (0.4,))


class Mixed(nn.Module):
    """A user's net: functions, methods, a mean, several activations, branches that are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2, padding=1, groups=1)
        self.second = nn.Conv2d(4, 4, 3, padding="same", groups=2, bias=False)
        self.third = nn.Conv2d(4, 4, 2, dilation=2)
        self.norm = nn.BatchNorm1d(12)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * x - 1
        a = nn.functional.leaky_relu(self.first(x), 0.1)
        b = torch.sigmoid(self.second(a)) + a
        c = nn.functional.avg_pool2d(torch.tanh(self.third(b)), 2)
        c = nn.functional.softplus(c.view(c.size(0), -1)) / 3
        d = nn.functional.elu(b.mean((2, 3))) - 0.1
        e = nn.functional.relu6(a.flatten(2).mean(2))
        joined = torch.cat([c, d, 1 - e], dim=1)
        return self.last(self.norm(joined))


def _registered(name: str) -> nn.Module:
    return MODELS.build(Spec.parse(name)).build(SHAPE)


NETS = {
    "strided": lambda: _registered("strided-cnn:width=4,hidden=20"),
    "batch norm and max-pooling": lambda: _registered("digits-cnn:width=4"),
    "residual": lambda: _registered("resnet-18:width=2"),
    "pre-activation": lambda: _registered("preact-resnet-18:width=2"),
    "mixed": Mixed,
}


def net(kind: str) -> nn.Module:
    """Return a net in evaluation mode whose running statistics are not those of a new one."""
    torch.manual_seed(0)
    model = NETS[kind]()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_(std=0.2)
    return model.eval().requires_grad_(False)
