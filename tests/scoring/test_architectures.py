"""Real architectures: dense multiplications equal torch's own counter, and everything stored is stored once."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from micronet_cli.layers.rules import own_shape
from micronet_cli.scoring import rule_set, score_with
from tests.timm_families import FAMILIES

ARCHITECTURES = (
    "convnext_atto",
    "deit_tiny_patch16_224",
    "ghostnet_050",
    "levit_128s",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "nf_resnet26",
    "pit_ti_224",
    "poolformer_s12",
    "regnety_002",
    "resnet18",
    "swin_tiny_patch4_window7_224",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
)


def on_meta(create):
    with torch.device("meta"):
        return create().eval().requires_grad_(False)


def torch_multiplications(model, shape):
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() / 2


def product_multiplications(network):
    """Of convolutions and matrix products; torch counts those of parameters alone too."""
    return sum(op.dot.multiplications for op in network.ops if op.dot) + network.free_multiplications


@pytest.mark.slow
@pytest.mark.parametrize("module", FAMILIES)
def test_first_architecture_of_every_family_scores(module):
    for name in timm.list_models(module=module)[:1]:
        test_dense_multiplications_equal_torchs(name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dense_multiplications_equal_torchs(name):
    model = on_meta(lambda: timm.create_model(name))
    report = score_with(model, rule_set("official"), shape := own_shape(model))
    assert product_multiplications(report.network) == torch_multiplications(model, shape)
    assert report.total.score > 0


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v2", "vit_b_16", "googlenet", "efficientnet_v2_s"])
def test_torchvision_multiplications_equal_torchs(name):
    model = on_meta(lambda: torchvision.models.get_model(name))
    report = score_with(model, rule_set("official"), (3, 224, 224))
    assert product_multiplications(report.network) == torch_multiplications(model, (3, 224, 224))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "regnety_002", "levit_128s", "convnext_atto"])
def test_every_parameter_is_stored_once_and_folded_batch_norms_by_half(name):
    model = on_meta(lambda: timm.create_model(name))
    folded = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d))
    unfolded = sum(
        m.bn.num_features for n, m in model.named_modules() if n in ("head", "head_dist") and hasattr(m, "bn")
    )
    report = score_with(model, rule_set("official"), own_shape(model))
    assert report.total.storage_params == sum(p.numel() for p in model.parameters()) - folded + unfolded


def test_vision_transformers_store_exactly_their_parameters():
    for name in ("deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224"):
        model = on_meta(lambda name=name: timm.create_model(name))
        report = score_with(model, rule_set("official"), own_shape(model))
        assert report.total.storage_params == sum(p.numel() for p in model.parameters()), name


def test_shufflenet_pays_for_its_permutations():
    model = on_meta(lambda: torchvision.models.get_model("shufflenet_v2_x0_5"))
    report = score_with(model, rule_set("official"), (3, 224, 224))
    assert sum(op.kind == "permute_channels" for op in report.network.ops) == 16
