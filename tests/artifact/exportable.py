"""A small network that exports to ONNX quickly, with BatchNorms of every kind of gain."""

import torch
from torch import nn

from micronet_cli.compression.quantization.quantizer import BitsRule
from micronet_cli.models.model import InputSpec

ALL = {"all": BitsRule(".*")}
SPEC = InputSpec((3, 12, 12), (0.5,) * 3, (0.5,) * 3)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def settle(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Ranges seen, BatchNorms with gains of both signs and one of zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            module.weight.data[0] = 0
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def nearly_dead(gain: float) -> nn.Sequential:
    """A network half of whose channels have a gain of almost nothing and a shift that counts."""
    model = small()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            few = module.num_features // 2
            module.weight.data[:few] = gain
            module.bias.data[:few] = torch.linspace(0.2, 1.0, few)
    return model
