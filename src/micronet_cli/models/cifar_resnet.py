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

# Parameters: 0.08 M, for tests and quick tries; then the paper's 0.27, 0.46, 0.66 and 0.85 M.
DEPTHS = (8, 20, 32, 44, 56)
INPUT = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "conv1",
    "classifier": "linear",
}
# timm looks a network's configuration up under this name.
default_cfgs = {f"resnet{depth}": INPUT for depth in DEPTHS}


def _conv3x3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        channels_in,
        channels,
        kernel_size=3,
        stride=stride,
        padding=1,
        bias=False,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut: ``[N, C_in, H, W] -> [N, C_out, H/stride, W/stride]``."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.padding = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """One residual block."""
        out = self.bn1(self.conv1(x))
        out = F.relu(out)
        out = self.bn2(self.conv2(out))
        if self.padding:
            x = self._shortcut(x)
        return F.relu(out + x)

    def _shortcut(self, x: Tensor) -> Tensor:
        subsampled = x[:, :, :: self.stride, :: self.stride]
        before = self.padding // 2
        after = self.padding - before
        return F.pad(subsampled, (0, 0, 0, 0, before, after))


def _stage(channels_in: int, channels: int, blocks: int, stride: int = 1) -> nn.Sequential:
    stage = nn.Sequential()
    stage.append(BasicBlock(channels_in, channels, stride))
    for _ in range(blocks - 1):
        stage.append(BasicBlock(channels, channels, stride=1))
    return stage


class CifarResNet(nn.Module):
    """``images [N, in_chans, H, W] -> logits [N, num_classes]``; any H and W from 8 up."""

    def __init__(self, blocks: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 64
        self.conv1 = _conv3x3(in_chans, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.linear

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.bn1(self.conv1(x))
        x = F.relu(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        features = x.mean((2, 3))
        return self.linear(features)


def _register(depth: int) -> None:
    """Make ``timm.create_model("resnet<depth>")`` build the network of that many layers."""
    blocks = (depth - 2) // 6

    def create(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
        return build_model_with_cfg(CifarResNet, create.__name__, pretrained, blocks=blocks, **kwargs)

    create.__name__ = f"resnet{depth}"
    register_model(create)


for depth in DEPTHS:
    _register(depth)
