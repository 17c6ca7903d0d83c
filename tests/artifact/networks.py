"""Small compressed networks with everything that makes packing hard: negative gains, ranges that were tracked."""

from dataclasses import asdict
from pathlib import Path

import timm
import torch
from timm.models import register_model
from torch import nn
from torch.nn.utils import parametrizations

from micronet_cli.artifact.pack import pack
from micronet_cli.artifact.runtime import load
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization import activation_quantizers as inputs
from micronet_cli.compression.quantization import weight_quantizers as weights
from micronet_cli.compression.quantization.quantizer import BitsRule, OutputRule, Quantizer
from micronet_cli.functional.granularity import NM, Block, Filter
from micronet_cli.models import cifar_resnet  # noqa: F401
from micronet_cli.models.model import InputSpec, state_input
from micronet_cli.torch_internals import BatchNorm

HIDDEN = "(?!{stem}$).*"
CLASSES = ["a", "b", "c"]


def header(model: nn.Module, name: str, side: int) -> dict:
    config = {"_target_": "micronet_cli.models.model.Model", "name": name}
    return {"model": config, "classes": CLASSES, "input": asdict(InputSpec.of(model, side)), "data": {}}


def network(
    name: str = "resnet8", side: int = 16, sparsity: float | None = 0.6, granularity=None, **quantize
) -> nn.Module:
    """A seeded network, pruned and quantised (``quantize``: arguments of the quantiser; none: float)."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=len(CLASSES))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.weight.normal_()
                module.bias.normal_(std=0.3)
    compressors = []
    if sparsity:
        options = {} if granularity is None else {"granularity": granularity}
        compressors.append(Pruner({"hidden": SparsityRule(HIDDEN, sparsity)}, **options))
    if quantize:
        compressors.append(Quantizer({"hidden": BitsRule(HIDDEN)}, **quantize))
    for compressor in compressors:
        compressor.attach(model)
        compressor.update(1, 1)
    model.train()(torch.randn(8, 3, side, side))
    return model.eval()


def transformer(depth: int = 2, side: int = 32, **quantize) -> tuple[nn.Module, dict]:
    """A small vision transformer whose products of attention are quantised too, and its header."""
    torch.manual_seed(0)
    args = {"img_size": side, "patch_size": 8, "depth": depth}
    model = timm.create_model("test_vit", num_classes=len(CLASSES), **args)
    state_input(model, (3, side, side))
    Quantizer({"hidden": BitsRule(HIDDEN)}, **quantize, attention=True).attach(model)
    model.train()(torch.randn(8, 3, side, side))
    given = header(model, "test_vit", side)
    given["model"]["args"] = args
    return model.eval(), given


def packed(path: Path, model: nn.Module, name: str = "resnet8", side: int = 16, entropy: bool = False) -> nn.Module:
    """The network, written to ``path`` and loaded again."""
    path.write_bytes(pack(model, header(model, name, side), entropy))
    return load(path, "path")[0]


NORMS = {"weight_normed": parametrizations.weight_norm, "spectral_normed": parametrizations.spectral_norm}


def register_normed(name: str) -> None:
    """Let timm know a small network whose layers have a norm in front of their weights."""
    with_norm = NORMS[name]

    def create(pretrained: bool = False, num_classes: int = 10, **_) -> nn.Module:
        model = nn.Sequential(
            with_norm(nn.Conv2d(3, 8, 3, bias=False)), nn.BatchNorm2d(8), nn.ReLU(), with_norm(nn.Conv2d(8, 6, 1)),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), with_norm(nn.Linear(6, num_classes)),
        )  # fmt: skip
        model.num_classes = num_classes
        model.pretrained_cfg = {"input_size": (3, 16, 16), "first_conv": "0", "classifier": "7"}
        return model

    create.__name__ = name
    register_model(create)


for normed in NORMS:
    register_normed(normed)


W4A4 = {"weight_bits": 4, "activation_bits": 4}
SCHEMES = {
    "w4a4": W4A4,
    "w8a8": {"weight_bits": 8, "activation_bits": 8},
    "five levels": {"weight_bits": 2.5, "activation_bits": 4},
    "weights only": {"weight_bits": 3, "activation_bits": None},
    "inputs only": {"weight_bits": None, "activation_bits": 4},
    "16 bits": {"weight_bits": 16, "activation_bits": 2},
    "symmetric": W4A4
    | {"weight": weights.RangeLinear(symmetric=True), "activation": inputs.TrackedRange(symmetric=True)},
    "per tensor": W4A4 | {"weight": weights.RangeLinear("per_tensor")},
    "lsq": W4A4 | {"weight": weights.WeightLSQ("per_tensor"), "activation": inputs.ActivationLSQ()},
    "lsq+": W4A4 | {"weight": weights.WeightLSQPlus(), "activation": inputs.ActivationLSQPlus()},
    "dorefa, pact": W4A4 | {"weight": weights.DoReFa(), "activation": inputs.PACT()},
    "binary": {"sparsity": None, "weight_bits": 1, "activation_bits": 4, "weight": weights.Binary()},
    "ternary": {"weight_bits": 1.6, "activation_bits": 4, "weight": weights.Ternary()},
    "a2q": W4A4 | {"accumulator_bits": 12},
    "outputs": W4A4 | {"outputs": {"block": OutputRule(r"layer\d\.0|layer1.0.bn2")}},
    "folded before": W4A4 | {"fold_batch_norm": True, "sparsity": None},
    "float": {},
    "dense float": {"sparsity": None},
    "2:4": W4A4 | {"granularity": NM(2, 4), "sparsity": 0.5},
    "blocks": W4A4 | {"granularity": Block([4, 4])},
    "filters": W4A4 | {"granularity": Filter()},
}
