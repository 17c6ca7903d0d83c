"""The CIFAR ResNets of He et al. (arXiv 1512.03385, section 4.2), registered with timm.

6n + 2 layers in three stages of 16, 32 and 64 channels, with parameter-free shortcuts (option A: subsample and
zero-pad). Names: ``conv1, bn1, layer{1,2,3}.{i}.conv{1,2}, .bn{1,2}, linear``.
"""

from typing import Any

import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

__all__: list[str] = []

default_cfgs = {
    f"resnet{depth}": {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "linear",
    }
    for depth in (8, 20, 32, 44, 56)
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut: ``[N, C_in, H, W] -> [N, C_out, H/stride, W/stride]``."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.padding = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """One residual block."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.padding:
            before = self.padding // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.padding - before))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """``images [N, in_chans, H, W] -> logits [N, num_classes]``; any H and W from 8 up."""

    def __init__(self, blocks: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 64
        self.conv1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [BasicBlock(channels, channels, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(channels_in, channels, stride), *rest)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.linear

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _create(name: str, blocks: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(CifarResNet, name, pretrained, blocks=blocks, **kwargs)


@register_model
def resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """8 layers, for tests and quick tries."""
    return _create("resnet8", 1, pretrained, **kwargs)


@register_model
def resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """20 layers, 0.27 M parameters."""
    return _create("resnet20", 3, pretrained, **kwargs)


@register_model
def resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """32 layers, 0.46 M parameters."""
    return _create("resnet32", 5, pretrained, **kwargs)


@register_model
def resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """44 layers, 0.66 M parameters."""
    return _create("resnet44", 7, pretrained, **kwargs)


@register_model
def resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """56 layers, 0.85 M parameters."""
    return _create("resnet56", 9, pretrained, **kwargs)
