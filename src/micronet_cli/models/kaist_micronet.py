"""The network of KAIST AI's entry to the 2019 MicroNet Challenge (CIFAR-100), registered with timm.

Inverted residuals with squeeze-and-excitation after the projection. Source: version 1 of Models/MicroNet.py in
https://github.com/Kthyeon/micronet_neurips_challenge, which says the layers' names too.
"""

from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from micronet_cli.models import cifar_resnet

__all__: list[str] = []

STEM_CHANNELS = 32
EXPANSION = 3
# (channels, blocks, stride of the first).
STAGES = (
    (16, 2, 1),
    (32, 1, 2),
    (32, 1, 1),
    (48, 3, 1),
    (72, 1, 2),
    (72, 4, 1),
    (80, 1, 2),
    (88, 2, 1),
    (106, 1, 1),
)
INPUT = cifar_resnet.INPUT | {"num_classes": 100}
# timm looks a network's configuration up under this name.
default_cfgs = {"kaist_micronet": INPUT}


def _pointwise(channels_in: int, channels: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=1, bias=bias)


class Block(nn.Module):
    """Expand, depthwise, project, gate, add: ``[N, C_in, H, W] -> [N, C_out, H/stride, W/stride]``."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        expanded = EXPANSION * channels_in
        squeezed = channels // 4
        self.stride = stride
        self.conv1 = _pointwise(channels_in, expanded)
        self.bn1 = nn.BatchNorm2d(expanded)
        self.act1 = nn.Hardswish()
        self.conv2 = nn.Conv2d(
            expanded,
            expanded,
            kernel_size=3,
            stride=stride,
            padding=1,
            groups=expanded,
            bias=False,
        )
        self.bn2 = nn.BatchNorm2d(expanded)
        self.act2 = nn.Hardswish()
        self.conv3 = _pointwise(expanded, channels)
        self.bn3 = nn.BatchNorm2d(channels)
        self.avg_se = nn.AdaptiveAvgPool2d(1)
        self.fc1 = _pointwise(channels, squeezed, bias=True)
        self.act_se = nn.Hardswish()
        self.fc2 = _pointwise(squeezed, channels, bias=True)
        self.sigmoid = nn.Sigmoid()
        self.shortcut = nn.Sequential()
        if stride == 1 and channels_in != channels:
            self.shortcut.append(_pointwise(channels_in, channels))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.act2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        squeezed = self.act_se(self.fc1(self.avg_se(out)))
        gate = self.sigmoid(self.fc2(squeezed))
        if self.stride != 1:
            # As it was entered: the gate is computed, and counted, but not applied.
            return out
        return out * gate + self.shortcut(x)


class KaistMicroNet(nn.Module):
    """``images [N, in_chans, H, W] -> logits [N, num_classes]``."""

    def __init__(self, num_classes: int = 100, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, STEM_CHANNELS, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.stem_act = nn.Hardswish()
        self.layers = nn.Sequential()
        width = STEM_CHANNELS
        for channels, blocks, first_stride in STAGES:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                self.layers.append(Block(width, channels, stride))
                width = channels
        self.num_features = width
        self.avg = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.3)
        self.linear = nn.Linear(width, num_classes)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.linear

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem_act(self.bn1(self.conv1(x)))
        x = self.layers(x)
        features = self.avg(x).flatten(1)
        return self.linear(self.dropout(features))


@register_model
def kaist_micronet(pretrained: bool = False, **kwargs: Any) -> KaistMicroNet:
    """Version 1, the one that was entered."""
    return build_model_with_cfg(KaistMicroNet, "kaist_micronet", pretrained, **kwargs)
