"""ProxylessNAS Mobile-14 (Cai et al., arXiv 1812.00332), registered with timm.

Of timm's own blocks, so layers are named as an EfficientNet's: ``conv_stem, blocks.{stage}.{i}.conv_pw, .conv_dw,
.conv_pwl, conv_head, classifier``. Source of the widths: ``proxylessnas_mobile14`` in
https://github.com/osmr/imgclsmob, whose README gives 6,857,568 parameters.
"""

from functools import partial
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from timm.models.efficientnet import EfficientNet, decode_arch_def
from torch import nn

__all__: list[str] = []

STEM_CHANNELS = 48
HEAD_CHANNELS = 1792
# Stages of blocks: kernel k, stride s, expansion e, channels c, r times.
STAGES = [
    ["ds_r1_k3_s1_e1_c24"],
    ["ir_r1_k5_s2_e3_c40", "ir_r1_k3_s1_e3_c40"],
    ["ir_r1_k7_s2_e3_c56", "ir_r1_k3_s1_e3_c56", "ir_r2_k5_s1_e3_c56"],
    ["ir_r1_k7_s2_e6_c112", "ir_r3_k5_s1_e3_c112"],
    ["ir_r1_k5_s1_e6_c136", "ir_r3_k5_s1_e3_c136"],
    ["ir_r1_k7_s2_e6_c256", "ir_r1_k7_s1_e6_c256", "ir_r2_k7_s1_e3_c256"],
    ["ir_r1_k7_s1_e6_c448"],
]
INPUT = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bilinear",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "conv_stem",
    "classifier": "classifier",
}
# timm looks a network's configuration up under this name.
default_cfgs = {"proxylessnas_mobile14": INPUT}


@register_model
def proxylessnas_mobile14(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """The network of the published width, 1.4 times ProxylessNAS Mobile's."""
    widths = {
        "block_args": decode_arch_def(STAGES),
        "stem_size": STEM_CHANNELS,
        "num_features": HEAD_CHANNELS,
        "fix_stem": True,
        "act_layer": nn.ReLU6,
        "norm_layer": partial(nn.BatchNorm2d, eps=1e-3),
    }
    return build_model_with_cfg(EfficientNet, "proxylessnas_mobile14", pretrained, **widths, **kwargs)
