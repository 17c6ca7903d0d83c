"""The CIFAR DenseNets of Huang et al. (arXiv 1608.06993, table 2), registered with timm.

DenseNet-BC: bottlenecks of 4k channels before each 3x3 convolution, and transitions that halve the channels; L layers
make three blocks of (L - 4) / 6 bottlenecks. Names: ``conv1, dense{1,2,3}.{i}.bn{1,2}, .conv{1,2}, trans{1,2}.bn,
.conv, bn, fc``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from micronet_cli.models import cifar_resnet

__all__: list[str] = []

# Layers and growth rate: 0.8 M parameters.
SIZES = ((100, 12),)
BOTTLENECK = 4  # channels of a bottleneck over the growth rate
INPUT = cifar_resnet.INPUT | {"num_classes": 100, "classifier": "fc"}
# timm looks a network's configuration up under this name.
default_cfgs = {f"densenet_bc{depth}_k{growth}": INPUT for depth, growth in SIZES}


class Bottleneck(nn.Module):
    """Adds ``growth`` channels to what it reads: ``[N, C, H, W] -> [N, C + growth, H, W]``."""

    def __init__(self, channels_in: int, growth: int) -> None:
        super().__init__()
        channels = BOTTLENECK * growth
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The input and the new channels."""
        out = F.relu(self.bn1(x))
        out = self.conv1(out)
        out = F.relu(self.bn2(out))
        out = self.conv2(out)
        return torch.cat((x, out), 1)


class Transition(nn.Module):
    """Halves height and width: ``[N, C_in, H, W] -> [N, C_out, H/2, W/2]``."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The pooled features."""
        out = F.relu(self.bn(x))
        out = self.conv(out)
        return F.avg_pool2d(out, 2)


def _dense_block(channels: int, growth: int, layers: int) -> nn.Sequential:
    block = nn.Sequential()
    for _ in range(layers):
        block.append(Bottleneck(channels, growth))
        channels += growth
    return block


class CifarDenseNet(nn.Module):
    """``images [N, in_chans, H, W] -> logits [N, num_classes]``; any H and W from 4 up."""

    def __init__(self, layers: int, growth: int, num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        grown = layers * growth
        first = 2 * growth
        second = (first + grown) // 2
        third = (second + grown) // 2
        self.num_features = third + grown
        self.conv1 = nn.Conv2d(in_chans, first, kernel_size=3, padding=1, bias=False)
        self.dense1 = _dense_block(first, growth, layers)
        self.trans1 = Transition(first + grown, second)
        self.dense2 = _dense_block(second, growth, layers)
        self.trans2 = Transition(second + grown, third)
        self.dense3 = _dense_block(third, growth, layers)
        self.bn = nn.BatchNorm2d(self.num_features)
        self.fc = nn.Linear(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.conv1(x)
        x = self.dense1(x)
        x = self.trans1(x)
        x = self.dense2(x)
        x = self.trans2(x)
        x = self.dense3(x)
        x = F.relu(self.bn(x))
        features = x.mean((2, 3))
        return self.fc(features)


def _register(depth: int, growth: int) -> None:
    """Make ``timm.create_model("densenet_bc<depth>_k<growth>")`` build that network."""
    layers = (depth - 4) // 6

    def create(pretrained: bool = False, **kwargs: Any) -> CifarDenseNet:
        sizes = {"layers": layers, "growth": growth}
        return build_model_with_cfg(CifarDenseNet, create.__name__, pretrained, **sizes, **kwargs)

    create.__name__ = f"densenet_bc{depth}_k{growth}"
    register_model(create)


for depth, growth in SIZES:
    _register(depth, growth)
