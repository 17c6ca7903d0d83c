"""Small compressed networks with everything that makes packing hard: negative gains, ranges that were tracked."""

from dataclasses import asdict
from pathlib import Path

import timm
import torch
from torch import nn

from micronet_cli.artifact.pack import pack
from micronet_cli.artifact.runtime import load
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.models import cifar_resnet  # noqa: F401
from micronet_cli.models.model import InputSpec
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


def packed(path: Path, model: nn.Module, name: str = "resnet8", side: int = 16, entropy: bool = False) -> nn.Module:
    """The network, written to ``path`` and loaded again."""
    path.write_bytes(pack(model, header(model, name, side), entropy))
    return load(path, "path")[0]
