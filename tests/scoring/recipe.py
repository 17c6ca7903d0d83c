"""The 2019 entry's recipe, built from the shipped YAML files."""

from functools import cache
from pathlib import Path

import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.functional.schedules import AGP

CONF = Path(__file__).parents[2] / "conf"


def pruner() -> Pruner:
    cfg = OmegaConf.to_container(OmegaConf.load(CONF / "prune/micronet2019.yaml"))
    schedule = {k: v for k, v in cfg["schedule"].items() if k != "_target_"}
    rules = {name: SparsityRule(**rule) for name, rule in cfg["rules"].items()}
    return Pruner(rules, AGP(**schedule), initial_sparsity=cfg["initial_sparsity"])


def quantizer() -> Quantizer:
    cfg = OmegaConf.to_container(OmegaConf.load(CONF / "quantize/micronet2019.yaml"))
    rules = {name: BitsRule(**rule) for name, rule in cfg.pop("rules").items()}
    cfg.pop("_target_")
    return Quantizer(rules, **cfg)


def network(name: str = "tf_efficientnet_b1") -> nn.Module:
    """A seeded network whose weights hold no zero by chance."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight[module.weight == 0] = 1e-3
    return model


def compress(model: nn.Module, prune: bool = True, quantize: bool = True) -> nn.Module:
    for compressor in ([pruner()] if prune else []) + ([quantizer()] if quantize else []):
        compressor.attach(model)
        compressor.update(1, 1)
    return model


@cache
def recipe() -> nn.Module:
    return compress(network())
